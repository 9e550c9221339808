"""One real bundle per session: the open glyph model as teacher, a short distillation."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from collegium.core.plan import EdgeConfig, ModelRef, Plan, Rounds, SiteRef
from collegium.core.plan_edge import Distillation
from collegium.core.signing import generate_key, save_public
from collegium.data.glyphs import glyph_set
from collegium.data.public import PublicSet
from collegium.edge import stage, stage_work
from collegium.models import registry

DIGITS = tuple("0123456789")
LOOSE = {"min_agreement": 0.5, "max_accuracy_drop": 0.5, "max_auc_drop": 0.5, "prefer": "size"}
SHORT = Distillation(steps=120, batch=64)


@dataclass(frozen=True)
class Made:
    """What the session's stage run left."""

    folder: Path
    key: Ed25519PrivateKey
    pem: Path
    result: stage.EdgeResult
    test: PublicSet
    heard: list[str]


def make_plan(**edge: Any) -> Plan:
    """A digits plan whose edge table is overridden."""
    return Plan(
        consortium="four-hospitals",
        sites=(
            SiteRef(name="north", public_records=300),
            SiteRef(name="south", public_records=300),
        ),
        model=ModelRef(name="collegium:glyph-cnn", task="classification", classes=DIGITS),
        rounds=Rounds(count=2),
        edge=replace(EdgeConfig(), **edge),
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def teacher() -> nn.Module:
    return registry.open_model(make_plan().model)


@pytest.fixture(scope="session")
def glyphs() -> PublicSet:
    return glyph_set(1200, seed=1)


@pytest.fixture(scope="session")
def plan_with() -> Callable[..., Plan]:
    return make_plan


@pytest.fixture(scope="session")
def made(teacher: nn.Module, glyphs: PublicSet, tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("edge")
    key, test = generate_key(), glyph_set(200, seed=2)
    save_public(key.public_key(), folder / "trusted.pub")
    heard: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage_work, "recipe_for", lambda *_, **__: SHORT)
        result = stage.make_bundle(
            teacher,
            plan=make_plan(
                min_agreement=0.5, max_accuracy_drop=0.5, max_auc_drop=0.5, prefer="size"
            ),
            transfer=glyphs,
            test=test,
            statement=stage.Statement(
                privacy={"epsilon": 3.0},
                lineage={"model": "collegium:glyph-cnn", "rounds": 2},
                global_bytes=434_992,
                simulated=True,
            ),
            edition=stage.Edition(keys=[key]),
            out=folder / "bundle",
            seed=0,
            progress=lambda name, _share: heard.append(name),
        )
    return Made(folder / "bundle", key, folder / "trusted.pub", result, test, heard)


@pytest.fixture
def bundle(made: Made, tmp_path: Path) -> Path:
    """A copy of the session's bundle, to be spoilt."""
    return Path(shutil.copytree(made.folder, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def raw_digits(glyphs: PublicSet) -> np.ndarray:
    return glyphs.x[:64].astype(np.float32)

"""Teachers, public transfer sets and test parts on which distillation is measured."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from collegium.core.plan import ModelRef, Plan
from collegium.core.plan_edge import Distillation
from collegium.data.datasets import load
from collegium.data.glyphs import glyph_set
from collegium.data.pixels import decoded
from collegium.data.public import PublicSet
from collegium.data.transfer_noise import noise_images
from collegium.edge.students_conv import ConvNet
from collegium.models import registry
from collegium.models.cards_own import CIFAR_CLASSES
from collegium.models.preprocess import PixelScale
from collegium.simulations.records import split_records
from collegium.simulations.run import simulate

Arrays = tuple[NDArray[np.generic], NDArray[np.int64]]
EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PRIVATE, PUBLIC = 600, 697  # digits that train the teacher, and those that nobody labelled
CIFAR_TRANSFER = 5000


@dataclass(frozen=True, kw_only=True)
class Case:
    """A trained teacher, the public records, the test part, and how its student is made."""

    teacher: nn.Module
    model: ModelRef
    transfer: PublicSet
    test: Arrays
    student: str
    recipe: Distillation


def cases() -> dict[str, Callable[[], Case]]:
    """Return what makes each case, by name; those of real data need COLLEGIUM_DATA."""
    return {
        "digits": lambda: digits("public"),
        "digits-glyphs": lambda: digits("glyphs"),
        "digits-noise": lambda: digits("noise"),
        "pneumonia": pneumonia,
        "cifar": cifar,
    }


def digits(source: str) -> Case:
    """A CNN of half a million parameters, trained on 600 digits; the test part has 500 others."""
    found = load("sklearn:digits")
    order = np.random.default_rng(0).permutation(len(found.y))
    own, public, test = np.split(order, [PRIVATE, PRIVATE + PUBLIC])
    sets = {
        "public": lambda: PublicSet(name="digits", origin="public", x=found.x[public]),
        "glyphs": lambda: glyph_set(4000, seed=0),
        "noise": lambda: PublicSet(
            name="synthetic:noise",
            origin="synthetic",
            x=noise_images((8, 8), 0, largest=16, count=4000),
        ),
    }
    return Case(
        teacher=_digits_teacher(found.x[own], found.y[own]),
        model=ModelRef(
            name="collegium:glyph-cnn", task="classification", classes=tuple("0123456789")
        ),
        transfer=sets[source](),
        test=(found.x[test], found.y[test]),
        student="cnn:tiny",
        recipe=Distillation(),
    )


def _digits_teacher(x: NDArray[np.generic], y: NDArray[np.int64]) -> nn.Module:
    torch.manual_seed(0)
    blocks = ((64, 1), (128, 1), (160, 2), (160, 1))
    model = ConvNet(PixelScale(16.0), (1, 8, 8), blocks, 10, pooled=False)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-2)
    inputs, labels = torch.from_numpy(np.array(x, dtype=np.float32)), torch.from_numpy(y)
    for _ in range(300):
        picked = torch.randint(len(inputs), (64,))
        noisy = inputs[picked] + torch.randn(64, 8, 8)
        loss = functional.cross_entropy(model(noisy), labels[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def pneumonia() -> Case:
    """SqueezeNet's head from the example's run at epsilon 8; 30 % of the records are nobody's."""
    plan = Plan.load(EXAMPLES / "pneumonia" / "plan-dp.toml")
    assert plan.simulation is not None
    plan = replace(
        plan,
        simulation=replace(
            plan.simulation,
            public_share=0.3,
            baselines=False,
            files=str(EXAMPLES / "pneumonia" / "records.toml"),
        ),
        edge=replace(plan.edge, student="none"),
    )
    with tempfile.TemporaryDirectory() as folder:
        teacher = simulate(plan, out=Path(folder) / "run").model
    records = split_records(plan)
    assert records.public is not None and records.test.y is not None
    return Case(
        teacher=teacher,
        model=plan.model,
        transfer=records.public,
        test=(records.test.x, records.test.y),
        student="cnn:small",
        recipe=Distillation(steps=500, batch=64, learning_rate=3e-3, mixup=0.5, noise=0.02),
    )


def cifar() -> Case:
    """The open ResNet-56; half of the 10,000 training pictures, without labels, are public."""
    ref = ModelRef(
        name="cifar:resnet56", task="classification", classes=CIFAR_CLASSES, image=(32, 32, 3)
    )
    teacher = registry.open_model(ref)
    assert teacher is not None
    x, _ = _pictures("train_10k.npz")
    picked = np.random.default_rng(0).permutation(len(x))[:CIFAR_TRANSFER]
    return Case(
        teacher=teacher,
        model=ref,
        transfer=PublicSet(name="cifar", origin="public", x=x[picked]),
        test=_pictures("test_10k.npz"),
        student="cifar:resnet20",
        recipe=Distillation(
            steps=300, batch=64, learning_rate=1e-3, mixup=0.0, noise=0.0, augment="flip-shift"
        ),
    )


def _pictures(name: str) -> Arrays:
    with np.load(Path(os.environ["COLLEGIUM_DATA"]) / "cifar10_jpeg" / name) as file:
        raw, ends, y = file["jpeg"].tobytes(), file["offset"], file["y"]
    return np.stack([decoded(raw[a:b], (32, 32, 3)) for a, b in pairwise(ends)]), y.astype(np.int64)

"""Open models after ``cure``: the engine's per-record norms are those of plain autograd."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "models-readiness.md"


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # readiness.py imports its neighbour by this name
    spec.loader.exec_module(module)
    return module


zoo = _load("model_zoo")
readiness = _load("readiness")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cases() -> list[Any]:
    light = {"squeezenet1_1", "DistilBERT", "DistilBERT + LoRA"}
    return [
        pytest.param(case, id=case.name, marks=() if case.name in light else pytest.mark.slow)
        for case in zoo.ZOO
    ]


@pytest.mark.parametrize("case", cases())
def test_norms_are_right_or_refused(case: Any) -> None:
    if missing := case.missing():
        pytest.skip(f"needs {', '.join(missing)}")
    found = readiness.examine(case)
    assert found["problems"] > 0 and found["left"] == []
    assert found["output_difference"] <= 1e-5
    assert found["state_maps_back"]
    for part in found["parts"].values():
        assert part["engine"] == "BookkeepingClipper"
        assert part["smallest_norm"] > 1e-4
        assert part["worst_relative_error"] <= 1e-4
        assert part["trained"] > 0
    assert readiness.fixed_cells(found) in TABLE.read_text(encoding="utf-8")


def test_the_table_names_every_model() -> None:
    text = TABLE.read_text(encoding="utf-8")
    assert all(f"| {case.name} |" in text for case in zoo.ZOO)


def test_checkpointing_and_tied_weights_of_language_models() -> None:
    transformers = pytest.importorskip("transformers")
    from collegium.privacy.cure import cure
    from collegium.privacy.readiness import check

    options = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    model = transformers.BertForMaskedLM(options)
    model.activation_checkpointing_enable()
    text = "\n".join(str(problem) for problem in check(model))
    assert "checkpointing is on" in text
    assert "'cls.predictions.decoder.weight': it is the same tensor as 'bert.embeddings" in text
    assert check(cure(model).model) == []


def test_swin_version_2_is_refused_unless_its_attention_stays_frozen() -> None:
    from torchvision.models import swin_v2_t

    from collegium.privacy.cure import cure
    from collegium.privacy.readiness import check

    model = swin_v2_t(weights=None, num_classes=3)
    refused = [problem for problem in check(model) if "hands its weights" in problem.what]
    assert len(refused) == 12 and all("freeze it" in problem.cure for problem in refused)
    cured, changes = cure(model)
    assert check(cured) == []
    assert sum("frozen" in change.what for change in changes) == 12
    assert any(value.requires_grad for value in cured.features[1][0].mlp.parameters())


@pytest.mark.slow
def test_the_command_in_the_document_prints_one_object() -> None:
    done = subprocess.run(
        [sys.executable, "readiness.py", "--json", "--models", "squeezenet1_1"],
        cwd=ROOT / "benchmarks",
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    (model,) = found["models"]
    assert found["schema"] == 1 and "torch" in found["versions"]
    assert model["parts"]["all"]["worst_relative_error"] <= 1e-4
    assert "benchmarks/readiness.py --json" in TABLE.read_text(encoding="utf-8")

"""Publishing again from a run's folder: what is refused, and with which word."""

import json
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import InvalidInput, MissingInput, NotAvailable, OutputExists
from collegium.core.plan_file import write_plan
from collegium.simulations.demo import demo_plan
from collegium.simulations.publishing import publish_simulated


def finished(folder: Path, **changes: Any) -> Path:
    values = {"schema": 1, "seeds": [7], "custom": False, "simulated": True} | changes
    values.setdefault("plan_sha256", demo_plan("breast-cancer").digest)
    (folder / "result.json").write_text(json.dumps(values))
    (folder / "plan.toml").write_text(write_plan(demo_plan("breast-cancer")))
    return folder


def test_unfinished_run(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="no finished run"):
        publish_simulated(tmp_path, out=tmp_path / "bundle")


def test_several_seeds(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="seeds"):
        publish_simulated(finished(tmp_path, seeds=[1, 2]), out=tmp_path / "bundle")


@pytest.mark.parametrize("changes", [{"custom": True}, {"simulated": False}])
def test_run_that_the_plan_does_not_describe(tmp_path: Path, changes: dict[str, bool]) -> None:
    with pytest.raises(NotAvailable):
        publish_simulated(finished(tmp_path, **changes), out=tmp_path / "bundle")


def test_bundle_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "model.onnx").write_bytes(b"x")
    with pytest.raises(OutputExists):
        publish_simulated(finished(tmp_path), out=tmp_path / "bundle")


def test_changed_plan(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="not the plan of this run"):
        publish_simulated(finished(tmp_path, plan_sha256="sha256:00"), out=tmp_path / "bundle")

"""The charged canary run and the membership of real records, on a finished run."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.core.errors import UsageError
from collegium.models import registry
from collegium.simulations import audit_leakage
from collegium.simulations.audit import FILE, MEMBERS, audit_run
from collegium.simulations.audit_build import FROZEN, MODEL, declared_layout, inputs_of
from collegium.simulations.demo import demo_plan
from collegium.simulations.run import simulate


@pytest.mark.slow
def test_a_demo_run_end_to_end(tmp_path: Path) -> None:
    """Membership on both models, the released files, and a charged run with canaries."""
    base = demo_plan("breast-cancer")
    plan = replace(
        base,
        rounds=replace(base.rounds, count=6),
        simulation=base.simulation and replace(base.simulation, baselines=False),
    )
    folder = tmp_path / "run"
    simulate(plan, out=folder)
    spent = [path.read_bytes() for path in sorted((folder / "ledgers").glob("*.sqlite"))]
    values = audit_run(folder, canaries=60)
    assert values["passed"]
    told = {row["name"]: row["verdict"] for row in values["tests"]}
    assert told[MODEL] == "passed"
    assert told[FROZEN] == "not exercised"  # of a linear model all is trained
    models = values["membership"]["models"]
    assert list(models) == ["released model", "quantized model"]
    assert values["membership"]["note"] == "stays at the site"
    assert "membership" not in json.loads((folder / FILE).read_text())
    apart = folder / "sites" / MEMBERS
    assert json.loads(apart.read_text()) == values["membership"]
    assert os.name == "nt" or apart.stat().st_mode & 0o077 == 0
    for sites in models.values():
        assert all(0 <= found["auroc"] <= 1 and found["tpr"] is None for found in sites.values())
    leak = values["leakage"]
    assert leak["passed"]
    assert leak["canaries"] == 60
    assert 0 < leak["in"] < 60
    assert leak["claimed_epsilon"] <= plan.privacy.epsilon
    assert {"updates", "final model"} == set(leak["attacks"])
    assert all(not found["refuted"] for found in leak["attacks"].values())
    shadow = folder / "audit-shadow" / "ledgers" / "north.sqlite"
    assert shadow.is_file()
    assert spent == [path.read_bytes() for path in sorted((folder / "ledgers").glob("*.sqlite"))]
    again = audit_run(folder, canaries=60)
    assert again == values  # the shadow is made anew, with the same draws
    with pytest.raises(UsageError, match="show nothing"):
        audit_run(folder, canaries=3)


def test_canaries_are_chosen_to_look_different() -> None:
    """Their gradients fill more of the space than those of as many random inputs."""
    plan, rng = demo_plan("breast-cancer"), np.random.default_rng(0)
    draw = inputs_of(plan)
    assert draw is not None
    x, y = audit_leakage._spread(plan, draw, rng, 20)
    model = registry.build(plan.model)
    names = declared_layout(model, plan).names

    def volume(x: Any, y: Any) -> float:
        g = audit_leakage._clipped_gradients(plan, model, names, x, y)
        return float(np.log(np.maximum(np.linalg.svd(g, compute_uv=False), 1e-9)).sum())

    others = [volume(draw(rng, 20), rng.integers(0, 2, 20)) for _ in range(5)]
    assert volume(x, y) > max(others)

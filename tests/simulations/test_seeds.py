"""Several seeds: which folders may be used, and what is raised when."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import OutputExists, UsageError
from collegium.core.plan import Plan
from collegium.simulations import seeds as module
from collegium.simulations.seeds import simulate_seeds


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put a stand-in for one run that writes a result; return the seeds that were run."""
    found: list[int] = []

    def simulate(plan: Plan, *, out: Path, resume: bool, **_: Any) -> None:
        assert plan.simulation is not None
        if resume and (out / "result.json").is_file():
            return
        seed = plan.simulation.seed
        found.append(seed)
        out.mkdir(parents=True)
        values = {"schema": 1, "seeds": [seed], "seconds": 1.0, "peak_rss_bytes": 5, "x": seed}
        (out / "result.json").write_text(json.dumps(values))

    monkeypatch.setattr(module, "simulate", simulate)
    monkeypatch.setattr(module, "write_report", lambda folder, path: path)
    return found


def test_each_seed_runs_once_and_medians_are_written(
    ran: list[int], make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    heard: list[tuple[int, int, int]] = []
    plan = make_plan(seed=10)
    values = simulate_seeds(
        plan, count=3, out=tmp_path, on_seed=lambda *numbers: heard.append(numbers)
    )
    assert ran == [10, 11, 12]
    assert heard == [(10, 1, 3), (11, 2, 3), (12, 3, 3)]
    assert values["x"] == 11 and values["seeds"] == ran
    assert simulate_seeds(plan, count=3, out=tmp_path, resume=True)["x"] == 11
    assert ran == [10, 11, 12]


def test_folder_that_holds_something_else_is_refused(
    ran: list[int], make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    plan, folder = make_plan(seed=0), tmp_path / "run"
    simulate_seeds(plan, count=2, out=folder)
    for words in ({"count": 2}, {"count": 1, "resume": True}, {"count": 3, "resume": True}):
        with pytest.raises(OutputExists):
            simulate_seeds(plan, out=folder, **words)
    single = tmp_path / "single"
    single.mkdir()
    (single / "plan.toml").touch()
    with pytest.raises(OutputExists, match="one seed"):
        simulate_seeds(plan, count=2, out=single, resume=True)
    with pytest.raises(OutputExists, match="is a file"):
        simulate_seeds(plan, count=2, out=single / "plan.toml")
    with pytest.raises(UsageError):
        simulate_seeds(plan, count=0, out=tmp_path / "none")

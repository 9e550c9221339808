"""The run directory: made once, never overwritten, never shared, never mixed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import OutputExists
from collegium.core.plan import Plan
from collegium.simulations.workspace import (
    is_finished,
    load_stage,
    run_identity,
    save_stage,
    workspace,
)

MakePlan = Callable[..., Plan]


def hold(folder: Path, plan: Plan, *, resume: bool = False, custom: bool = False) -> Any:
    return workspace(folder, plan, identity=run_identity(plan, custom=custom), resume=resume)


def test_made_with_its_plan(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan()
    with hold(tmp_path / "deep" / "run", plan) as folder:
        assert Plan.load(folder / "plan.toml") == plan
        assert not is_finished(folder)


def test_never_overwrites(make_plan: MakePlan, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputExists, match="not empty"), hold(tmp_path, make_plan()):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputExists), hold(tmp_path / "file", make_plan(), resume=True):
        pass


def test_one_process_at_a_time(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan()
    with (
        hold(tmp_path / "run", plan),
        pytest.raises(OutputExists, match="another process"),
        hold(tmp_path / "run", plan, resume=True),
    ):
        pass
    with hold(tmp_path / "run", plan, resume=True):
        pass


@pytest.mark.parametrize("change", ["rounds", "seed", "epsilon", "custom"])
def test_a_run_goes_on_as_what_it_began(make_plan: MakePlan, tmp_path: Path, change: str) -> None:
    plan = make_plan(rounds=4)
    with hold(tmp_path / "run", plan):
        pass
    other = {
        "rounds": make_plan(rounds=5),
        "seed": make_plan(rounds=4, seed=8),
        "epsilon": replace(plan, privacy=replace(plan.privacy, epsilon=1.0)),
        "custom": plan,
    }[change]
    for finished in (False, True):
        if finished:
            (tmp_path / "run" / "result.json").write_text("{}")
        with (
            pytest.raises(OutputExists),
            hold(tmp_path / "run", other, resume=True, custom=change == "custom"),
        ):
            pass


def test_resume_starts_a_missing_run_and_repairs_a_torn_beginning(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    plan = make_plan()
    with hold(tmp_path / "run", plan, resume=True) as folder:
        pass
    (folder / "plan.toml").unlink()  # killed between the two files
    (folder / "plan.toml.partial").write_text("half")
    with hold(tmp_path / "run", plan, resume=True) as folder:
        assert Plan.load(folder / "plan.toml") == plan


def test_stages(tmp_path: Path) -> None:
    assert load_stage(tmp_path, "edge") is None
    save_stage(tmp_path, "edge", {"accuracy": 0.5})
    assert load_stage(tmp_path, "edge") == {"accuracy": 0.5}
    with pytest.raises(ValueError):
        save_stage(tmp_path, "edge", {"accuracy": float("nan")})
    assert load_stage(tmp_path, "edge") == {"accuracy": 0.5}

"""Short runs, as the audit's grid makes them by the hundred."""

from pathlib import Path

from collegium.simulations.mutants import audited, short_plan, short_records
from collegium.simulations.short_run import JOB, short_run


def test_the_short_run_is_a_run(tmp_path: Path) -> None:
    """Every round of every site is reserved, committed and seen."""
    plan = short_plan(0)
    found = short_run(plan, short_records(plan, 0), tmp_path / "run")
    assert len(found.rounds) == 8
    charged = {name: sum(steps for _, steps in spend) for name, spend in found.spends.items()}
    assert charged == dict.fromkeys(("s0", "s1", "s2"), 16)
    assert found.vector.shape == (640,)
    assert len(JOB) == 32
    assert audited(tmp_path / "other", seed=0)["passed"]

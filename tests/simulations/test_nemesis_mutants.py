"""Every planted bug is caught: invariants that nothing can break would show nothing."""

import pytest

from collegium.simulations.nemesis_mutants import MUTANTS, first_catch

CAUGHT_AT = {
    "accept any vector": 49,
    "skip the base check": 268,
    "trust the checkpoint": 164,
    "undo a durable round": 26,
}
"""Where ``benchmarks/faults.py`` finds each of them; others are looked for from the beginning."""


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_planted_bug_is_caught(name: str) -> None:
    first = CAUGHT_AT.get(name, 0)
    assert first_catch(name, range(max(0, first - 5), first + 20)) is not None

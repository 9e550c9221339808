"""Records to privacy units and back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collegium.privacy.units import Units


def test_by_hand() -> None:
    units = Units.of(np.array(["b", "a", "b", "c"]))
    assert len(units) == 3
    rows, owners = units.rows_of(np.array([0, 1]))
    assert rows.tolist() == [1, 0, 2]  # a's record, then both of b
    assert owners is not None
    assert owners.tolist() == [0, 1, 1]


def test_singles_are_the_batch_itself() -> None:
    rows, owners = Units.singles(5).rows_of(np.array([1, 3]))
    assert rows.tolist() == [1, 3]
    assert owners is None


def test_nobody_sampled() -> None:
    rows, owners = Units.of(np.array([1, 1])).rows_of(np.zeros(0, dtype=np.intp))
    assert rows.size == 0
    assert owners is not None
    assert owners.size == 0
    assert len(Units.of(np.zeros(0))) == 0


@given(st.lists(st.integers(0, 6), max_size=40))
def test_a_partition(owners: list[int]) -> None:
    """All units together hold each record once; a unit holds its own records alone."""
    names = np.array(owners, dtype=np.int64)
    units = Units.of(names)
    assert len(units) == len(set(owners))
    rows, places = units.rows_of(np.arange(len(units)))
    assert sorted(rows.tolist()) == list(range(len(owners)))
    if places is not None:
        for place in set(places.tolist()):
            assert len(set(names[rows[places == place]].tolist())) == 1

"""Splits: every record once, nobody above capacity, the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.data.split import dirichlet, holdout, iid


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=120).map(
    lambda values: np.array(values, dtype=np.int64)
)


@given(labels=LABELS, share=st.floats(0, 0.9), seed=st.integers(0, 99))
def test_holdout_cuts_every_class(labels: np.ndarray, share: float, seed: int) -> None:
    kept, out = holdout(labels, share, rng(seed))
    assert sorted([*kept, *out]) == list(range(len(labels)))
    for label in range(5):
        assert (labels[out] == label).sum() == int((labels == label).sum() * share)


@given(
    labels=LABELS, sites=st.integers(1, 6), room=st.integers(0, 20),
    alpha=st.sampled_from([0.01, 0.5, 100.0]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(deadline=None)
def test_every_record_in_one_site_and_none_above_its_capacity(
    labels: np.ndarray, sites: int, room: int, alpha: float, seed: int
) -> None:
    shares = rng(seed).dirichlet([1.0] * sites)
    capacities = [int(share * (len(labels) + room)) + 1 for share in shares]
    for parts in (
        dirichlet(labels, capacities, alpha, rng(seed)),
        iid(labels, capacities, rng(seed)),
    ):
        assert sorted(np.concatenate(parts)) == list(range(len(labels)))
        assert all(len(part) <= room for part, room in zip(parts, capacities, strict=True))
        assert all(part.dtype == np.intp for part in parts)


def test_too_little_room() -> None:
    labels = np.zeros(10, dtype=np.int64)
    for split in (
        lambda: dirichlet(labels, [4, 5], 0.5, rng()),
        lambda: iid(labels, [4, 5], rng()),
    ):
        with pytest.raises(ValueError, match="1 records fit into no site"):
            split()


def test_alpha_is_the_skew() -> None:
    """Hsu et al. 2019: a small alpha gives a class to few sites, a large one to all alike."""
    labels = rng().integers(0, 10, 4000)

    def largest_share(alpha: float) -> float:
        parts = dirichlet(labels, [4000] * 4, alpha, rng(1))
        table = np.array([np.bincount(labels[part], minlength=10) for part in parts])
        return float((table.max(axis=0) / table.sum(axis=0)).mean())

    assert largest_share(0.05) > 0.8
    assert largest_share(0.5) > 0.5
    assert largest_share(1000.0) < 0.3


def test_iid_follows_the_capacities() -> None:
    parts = iid(np.zeros(600, dtype=np.int64), [100, 200, 300], rng())
    assert [len(part) for part in parts] == [100, 200, 300]


def test_reproducible() -> None:
    labels = rng().integers(0, 3, 100)
    one, two, other = (dirichlet(labels, [100] * 3, 0.5, rng(seed)) for seed in (5, 5, 6))
    assert all((a == b).all() for a, b in zip(one, two, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(one, other, strict=True))


@given(seed=st.integers(0, 200), alpha=st.sampled_from([0.05, 1.0]))
@settings(deadline=None)
def test_what_takes_more_room_counts_as_more(seed: int, alpha: float) -> None:
    """Families of one to four: each goes to one site, and no site holds more people than fit."""
    sizes = rng(seed).integers(1, 5, 60)
    labels, room = rng(seed).integers(0, 3, 60), int(sizes.sum()) // 2 + 4
    for parts in (
        dirichlet(labels, [room, room], alpha, rng(seed), sizes=sizes),
        iid(labels, [room, room], rng(seed), sizes=sizes),
    ):
        assert sorted(np.concatenate(parts)) == list(range(60))
        assert all(sizes[part].sum() <= room for part in parts)
    with pytest.raises(ValueError, match="fit into no site"):
        iid(labels, [room, 3], rng(seed), sizes=sizes)

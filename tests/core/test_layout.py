"""Offsets, sizes and digests of the flat vector, worked by hand."""

import numpy as np
import pytest

from collegium.core.layout import Layout

HAND = Layout.of({"head.weight": (2, 3), "head.bias": (2,), "scale": ()})


def test_offsets_by_hand() -> None:
    assert HAND.names == ("head.weight", "head.bias", "scale")
    assert HAND.offsets == (0, 6, 8)
    assert HAND.size == 9  # a scalar is one coordinate


def test_empty_layout() -> None:
    assert Layout.of({}).size == 0
    assert Layout.of({}).split(np.zeros(0, dtype=np.float32)) == {}


def test_split_gives_views_in_shape() -> None:
    vector = np.arange(9, dtype=np.float32)
    parts = HAND.split(vector)
    np.testing.assert_array_equal(parts["head.weight"], [[0, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(parts["head.bias"], [6, 7])
    assert parts["scale"].shape == ()
    assert all(np.shares_memory(part, vector) for part in parts.values())


def test_dict_round_trip_keeps_the_digest() -> None:
    again = Layout.from_dict(HAND.to_dict())
    assert again == HAND
    assert again.digest == HAND.digest


@pytest.mark.parametrize(
    "other",
    [
        {"head.bias": (2,), "head.weight": (2, 3), "scale": ()},  # another order
        {"head.weight": (3, 2), "head.bias": (2,), "scale": ()},  # another shape, same size
        {"head.weigth": (2, 3), "head.bias": (2,), "scale": ()},  # another name
    ],
)
def test_any_other_layout_has_another_digest(other: dict[str, tuple[int, ...]]) -> None:
    assert Layout.of(other).size == HAND.size
    assert Layout.of(other).digest != HAND.digest


def test_digest_known_answer() -> None:
    """Frozen: sites and coordinators of different versions compare these."""
    assert HAND.digest == KNOWN


KNOWN = "sha256:4ed5a09bfd7d11adaaf5ea7f494dd021f2e2041f5b6ab6421f5957148e4b2984"

"""The two bundled data sets: sizes, ranges and classes as their sources say."""

import numpy as np
import pytest

from collegium.core.errors import InvalidInput
from collegium.data.datasets import NAMES, load


def test_digits() -> None:
    found = load("sklearn:digits")
    assert found.x.shape == (1797, 8, 8)
    assert found.x.dtype == np.float32
    assert found.y.dtype == np.int64
    assert (found.x.min(), found.x.max()) == (0.0, 16.0)
    assert found.classes == tuple("0123456789")
    assert np.bincount(found.y).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_breast_cancer() -> None:
    found = load("sklearn:breast_cancer")
    assert found.x.shape == (569, 30)
    assert len(found.features) == 30
    assert found.classes == ("malignant", "benign")
    assert np.bincount(found.y).tolist() == [212, 357]


@pytest.mark.parametrize("name", ["sklearn:iris", "", "/etc/passwd", "../digits.csv"])
def test_unknown(name: str) -> None:
    with pytest.raises(InvalidInput, match="downloads none"):
        load(name)
    assert name not in NAMES

"""A public set has an origin, and a private one is refused at its making."""

import numpy as np
import pytest

from collegium.core.errors import Refused
from collegium.data.public import PublicSet

X = np.arange(12, dtype=np.float32).reshape(3, 4)
Y = np.array([0, 1, 2])


def test_private_is_refused() -> None:
    with pytest.raises(Refused, match="ledger"):
        PublicSet(name="records", origin="private", x=X, y=Y)


def test_digest_names_contents_shape_and_type() -> None:
    sets = [
        PublicSet(name="a", origin="public", x=X, y=Y),
        PublicSet(name="a", origin="public", x=X, y=None),
        PublicSet(name="a", origin="public", x=X.reshape(4, 3), y=Y),
        PublicSet(name="a", origin="public", x=X.astype(np.float64), y=Y),
        PublicSet(name="a", origin="public", x=X, y=Y[::-1]),
        PublicSet(name="a", origin="public", x=X + 1, y=Y),
    ]
    assert len({found.digest for found in sets}) == len(sets)
    again = PublicSet(name="b", origin="synthetic", x=np.asfortranarray(X), y=Y.copy())
    assert again.digest == sets[0].digest
    assert len(again) == 3


def test_made_up_records_say_that_no_data_went_into_them() -> None:
    for name, origin, free in (
        ("synthetic:noise", "synthetic", True),
        ("synthetic:bounds#calibration", "synthetic", True),  # a part of such a set
        ("collegium:glyphs/mixed/1", "synthetic", False),
        ("synthetic:noise", "public", False),
    ):
        assert PublicSet(name=name, origin=origin, x=X).data_free == free  # type: ignore[arg-type]

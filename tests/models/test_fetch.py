"""Bundled assets are read by digest."""

import pytest

from collegium.core.errors import MissingInput, Refused
from collegium.models.fetch import asset_bytes, asset_card


def test_an_asset_is_returned_when_its_digest_agrees() -> None:
    digest = asset_card("glyph-cnn.json")["weights"]
    assert len(asset_bytes("glyph-cnn.safetensors", digest)) > 100_000


def test_another_digest_is_refused() -> None:
    with pytest.raises(Refused, match="pinned"):
        asset_bytes("glyph-cnn.safetensors", "sha256:" + "0" * 64)


def test_an_asset_that_is_not_there_is_missing_input() -> None:
    with pytest.raises(MissingInput):
        asset_card("nothing.json")

"""Open weights by digest: no file is read into a model before its bytes are checked."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from ..core.digest import sha256_hex
from ..core.errors import MissingInput, Refused


def asset_bytes(name: str, digest: str) -> bytes:
    """Return the bytes of a bundled asset whose SHA-256 is ``digest`` (``sha256:...``).

    Raises ``MissingInput`` when there is no such asset and ``Refused`` when its bytes differ.
    """
    content = _read(name)
    if (found := sha256_hex(content)) != digest:
        raise Refused(
            f"The weights '{name}' have the digest {found}, but {digest} was pinned",
            why="a fine-tuned model is only as trustworthy as the open model it started from",
            cure="reinstall collegium, or pin the digest that its model card names",
        )
    return content


@cache
def asset_card(name: str) -> dict[str, Any]:
    """Return a bundled model card as plain values, not to be changed; raises ``MissingInput``."""
    return json.loads(_read(name))


def _read(name: str) -> bytes:
    asset = files(__package__ or "collegium.models") / "assets" / name
    if not asset.is_file():
        raise MissingInput(
            f"The bundled asset '{name}' is not there",
            why="this installation of collegium is not complete",
            cure="reinstall collegium",
        )
    return asset.read_bytes()

"""One thing that looks wrong with records: where, what, and the cure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """``kind`` groups findings ("drift", "labels", "parts", "file"); no field holds a value."""

    kind: str
    where: str
    what: str
    cure: str


def percent(share: float) -> str:
    """Return a share in words, never 0 % for something that is there."""
    return f"{share:.0%}" if share >= 0.01 else "under 1%"

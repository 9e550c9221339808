"""Which edition of a model a bundle is: its version, its day, who signs, what is in the field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .since import TOLERANCE, Field


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """What the publisher decides, and no measurement does.

    ``keys`` sign (k of n: a device counts those that it trusts); ``version`` only ever grows,
    ``previous`` is the digest of the bundle before, or ''. ``created`` (UTC) starts the time of
    validity; the same day gives the same bytes. ``field`` is the bundle in use, which this one
    must not be worse than by more than ``tolerance``.
    """

    keys: Sequence[Ed25519PrivateKey]
    version: int = 1
    previous: str = ""
    created: datetime | None = None
    field: Field | None = None
    tolerance: float = TOLERANCE

    @property
    def day(self) -> datetime:
        """Return the day from which the bundle is valid: ``created``, else today's midnight."""
        if self.created is not None:
            return self.created
        return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)

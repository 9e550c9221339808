"""A site and the coordinator's signed questions to it."""

import time
from typing import Any

import numpy as np
import pytest

from collegium.core.digest import sha256_hex
from collegium.core.messages import BadMessage, Decline, Invitation, Sealed, Update

JOB = "0" * 32


class Counter:
    """One site of a lab, asked by hand."""

    def __init__(self, lab: Any, name: str = "s0") -> None:
        self.lab, self.name = lab, name
        self.site, self.key = lab.sites[name], lab.consortium.key
        self.ledger = lab.consortium.ledgers[name]
        self.layout = lab.consortium.layout
        self.public = self.site._key.public_key()

    def base(self, shift: float = 0.0) -> np.ndarray:
        """The open model, moved a little."""
        return (self.lab.consortium.opened + np.float32(shift)).astype(np.float32)

    def ask(self, *, base: np.ndarray | None = None, key: Any = None, **changes: Any) -> Sealed:
        """A signed invitation to round 1."""
        payload = (self.base() if base is None else base).astype("<f4").tobytes()
        values: dict[str, Any] = {
            "job": JOB, "site": self.name, "plan": self.lab.plan.digest, "round": 1, "attempt": 1,
            "base_sha256": sha256_hex(payload), "layout": self.layout.digest,
            "deadline": time.time() + 60, "nonce": "n",
            "site_ledger_head": self.ledger.head if self.kinds[1:] else "",
        }  # fmt: skip
        return Invitation(**values | changes).seal(key or self.key, payload)

    def code(self, reply: Sealed) -> str:
        """The code of a decline, or ok for an update."""
        try:
            return Decline.open(reply, self.public).code
        except BadMessage:
            Update.open(reply, self.public)
            return "ok"

    @property
    def kinds(self) -> list[str]:
        """What stands in the ledger, countersigned heads left out."""
        kinds = [entry.kind for entry in self.ledger.entries()]
        return [kind for kind in kinds if kind != "witness"]


@pytest.fixture
def make_counter(make_lab: Any) -> Any:
    """The builder of counters."""

    def make(plan: Any = None, **options: Any) -> Counter:
        return Counter(make_lab(plan, **options))

    return make

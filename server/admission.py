"""Whether one site's reply may be folded: structure is checked here, once, before decoding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..core.codec import Codec
from ..core.errors import ACCEPT, Verdict, refuse
from ..core.layout import Layout, Vector
from ..core.mechanism import MechanismSpec, spec_digest
from ..core.messages import BadMessage, Decline, Sealed, Update
from ..privacy.bounds import update_norm_bound
from .told import Figures, may_be_told

_PART = 1 << 16  # coordinates


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """What the coordinator knows of a site: key, mechanism, public size, weight."""

    public_key: Ed25519PublicKey
    spec: MechanismSpec
    public_records: int
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The invitation that a reply must answer; ``figures`` it asked for (empty: none)."""

    job: str
    round: int
    attempt: int
    base_sha256: str
    figures: Figures = field(default_factory=dict[str, tuple[float, float]])


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """An update that passed every check, with its decoded vector (d,)."""

    update: Update
    vector: Vector


class Admission:
    """Checks replies against the plan's layout, codec, mechanisms and roster."""

    def __init__(
        self,
        *,
        layout: Layout,
        codec: Codec,
        members: Mapping[str, Member],
        learning_rate: float,
    ) -> None:
        self._layout, self._codec, self._members = layout, codec, members
        self._bounds = {
            name: (1 + codec.relative_error)
            * update_norm_bound(
                member.spec,
                size=layout.size,
                public_records=member.public_records,
                learning_rate=learning_rate,
            )
            for name, member in members.items()
        }

    @property
    def payload_bytes(self) -> int:
        """Return how long an update's payload is: no honest answer has a longer one."""
        return self._codec.size_bytes(self._layout.size)

    def admit(
        self, site: str, reply: Sealed, expected: Expected
    ) -> tuple[Verdict, Admitted | None]:
        """Return a verdict, and the update when it is positive.

        Order, cheapest first: roster, byte length, signature and schema, job, round, attempt
        and base, layout, mechanism and codec, metrics, then finite values and norm. A decline
        gives its own code.
        """
        member = self._members.get(site)
        if member is None:
            return refuse("roster", f"'{site}' is not on the roster"), None
        if (declined := self._declined(site, reply, member, expected)) is not None:
            return declined, None
        if len(reply.payload) != self.payload_bytes:
            return refuse("shape", f"{len(reply.payload)} bytes do not fit the layout"), None
        try:
            update = Update.open(reply, member.public_key)
        except BadMessage as error:
            return refuse(error.code, "the reply is not this site's signed update"), None
        verdict = self._answers(site, update, member, expected)
        if not verdict.ok:
            return verdict, None
        vector = self._codec.decode(reply.payload, self._layout.size)
        verdict = self._plausible(site, vector)
        return verdict, Admitted(update=update, vector=vector) if verdict.ok else None

    def decode(self, reply: Sealed) -> Vector:
        """Return the vector (d,) of a reply that was admitted before."""
        return self._codec.decode(reply.payload, self._layout.size)

    def _declined(
        self, site: str, reply: Sealed, member: Member, expected: Expected
    ) -> Verdict | None:
        if reply.payload:
            return None  # a decline carries none; so an update's signature is checked once
        try:
            decline = Decline.open(reply, member.public_key)
        except BadMessage:
            return None  # not a decline: it is judged as an update
        given = (decline.job, decline.site, decline.round, decline.attempt)
        if given != (expected.job, site, expected.round, expected.attempt):
            return refuse("round", "the decline answers another invitation")
        return refuse(decline.code, "declined by the site")

    def _answers(self, site: str, update: Update, member: Member, expected: Expected) -> Verdict:
        for code, given, wanted in (
            ("roster", update.site, site),
            ("job", update.job, expected.job),
            ("round", update.round, expected.round),
            ("attempt", update.attempt, expected.attempt),
            ("base", update.base_sha256, expected.base_sha256),
            ("layout", update.layout, self._layout.digest),
            ("codec", update.codec, self._codec.name),
            ("mechanism", update.spec, spec_digest(member.spec)),
        ):
            if given != wanted:
                return refuse(code, f"{code} is not the one of the invitation")
        if not may_be_told(update.metrics, expected.figures):
            return refuse("metrics", "it tells other figures than the invitation asked for")
        return ACCEPT

    def _plausible(self, site: str, vector: Vector) -> Verdict:
        norm = _norm(vector)
        if not math.isfinite(norm):
            return refuse("nonfinite", "the update holds NaN or infinite values")
        if norm > self._bounds[site]:
            return refuse("norm", f"norm {norm:.3g} exceeds {self._bounds[site]:.3g}")
        return ACCEPT


def _norm(vector: Vector) -> float:
    """Return the L2 norm in float64, which no finite float32 vector (d,) can overflow.

    By parts: beside the update itself no second copy of it is ever in memory.
    """
    total = 0.0
    for start in range(0, len(vector), _PART):
        part = vector[start : start + _PART].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            total += float(np.dot(part, part))
    return math.sqrt(total) if math.isfinite(total) else math.inf

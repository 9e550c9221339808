"""A small NumPy site that keeps to ``client/site.py``'s protocol, and may die at every action.

Gate, signatures and codec are the real ones; ledger and spool are in memory and outlive the
site's process, as files do. The update is a function of seed, site, round and base model, plus
noise that is drawn anew for every computation, as a real site draws it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..client.gate import may_leave, read_base
from ..core.codec import Codec
from ..core.digest import sha256_hex
from ..core.layout import Layout, Vector
from ..core.messages import BadMessage, Decline, Hello, Invitation, Report, Sealed, Update
from ..privacy.ledger_rows import GENESIS_HEAD
from .lies import HELLO_LIES, REPORT_LIES, Liar, SealedLie
from .nemesis_world import EPOCH, World

Attempt = tuple[str, int, int]
"""Job, round and attempt: what one reserve pays for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What all sites of a simulation agree on."""

    plan: str
    rounds: int
    layout: Layout
    codec: Codec
    opened_sha256: str
    coordinator: Ed25519PublicKey
    seed: int
    fresh_noise: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the site's ledger; ``head`` chains it to all before it."""

    kind: str
    attempt: Attempt
    detail: str
    head: str


@dataclass(slots=True)
class Books:
    """What outlives the site's process, and what the checker knows beside it."""

    entries: list[Entry] = field(default_factory=list[Entry])
    spool: dict[Attempt, Sealed] = field(default_factory=dict[Attempt, Sealed])
    left: list[tuple[Attempt, str]] = field(default_factory=list[tuple[Attempt, str]])
    draws: int = 0


class SimSite:
    """One site; methods take and return signed bytes, as those of the real one do."""

    def __init__(
        self,
        world: World,
        terms: Terms,
        *,
        name: str,
        key: Ed25519PrivateKey,
        spec: str,
        lie: SealedLie | None = None,
        talk: str = "",
    ) -> None:
        """``spec`` is the digest of its mechanism; ``lie`` what it sends in place of updates.

        ``talk`` names the lie that it tells in every second hello, or in its reports.
        """
        self.name, self._world, self.terms, self._key, self._spec = name, world, terms, key, spec
        self.lie, self._liar = lie, Liar(key=key, codec=terms.codec, size=terms.layout.size)
        self._talk, self._hellos = talk, 0
        self.books = Books()
        self.full, self.skew_s = False, 0.0

    @property
    def head(self) -> str:
        """Return the hash of the newest ledger entry."""
        return self.books.entries[-1].head if self.books.entries else GENESIS_HEAD

    def hello(self, request: Sealed) -> Sealed:
        """Answer who this site is and where its ledger stands."""
        asked = Hello.open(request, self.terms.coordinator)
        honest = Hello(
            job=asked.job,
            site=self.name,
            plan=self.terms.plan,
            nonce=asked.nonce,
            ledger_head=self.head,
        ).seal(self._key)
        self._hellos += 1
        lie = HELLO_LIES.get(self._talk.removeprefix("hello ")) if self._hellos % 2 else None
        return self._told("hello", lie, honest)

    def evaluate(self, request: Sealed) -> Sealed:
        """Answer how good a model is: these sites always say the same."""
        asked = Invitation.open(request, self.terms.coordinator)
        honest = Report(
            job=asked.job,
            site=self.name,
            model_sha256=asked.base_sha256,
            metrics={"accuracy": 0.5},
        ).seal(self._key)
        return self._told("report", REPORT_LIES.get(self._talk.removeprefix("report ")), honest)

    def train(self, request: Sealed) -> Sealed:
        """Answer an invitation: gate, stored bytes or reserve, train, spool, commit."""
        asked = Invitation.open(request, self.terms.coordinator)
        code, base = self._admit(asked, request.payload)
        if not code:
            attempt = (asked.job, asked.round, asked.attempt)
            found = self._answer(attempt, asked, base)
            if isinstance(found, Sealed):
                sent = self.lie(self._liar, found) if self.lie else found
                self.books.left.append((attempt, sha256_hex(found.payload)))
                self._act("answer")
                return sent
            code = found
        return Decline(
            job=asked.job, site=self.name, round=asked.round, attempt=asked.attempt, code=code
        ).seal(self._key)

    def update(self, round: int, base: Vector, draw: int) -> Vector:
        """Return the update (d,) of one round from ``base``, under the noise of one draw."""
        label = f"{self.terms.seed}|{self.name}|{round}|{sha256_hex(base.tobytes())}|{draw}"
        digest = hashlib.sha256(label.encode()).digest()
        rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "big")))
        return (0.1 * rng.standard_normal(self.terms.layout.size)).astype(np.float32)

    def _told(self, kind: str, lie: SealedLie | None, honest: Sealed) -> Sealed:
        if lie is None or not self._talk.startswith(f"{kind} ") or self._world.quiet:
            return honest
        self._world.injected[f"lie in a {kind}"] += 1
        return lie(self._liar, honest)

    # --- one step each, as in client/site.py ------------------------------------------------

    def _admit(self, asked: Invitation, payload: bytes) -> tuple[str, Vector]:
        nothing = np.zeros(0, dtype=np.float32)
        seen = asked.site_ledger_head
        known = {GENESIS_HEAD, *(entry.head for entry in self.books.entries)}
        rules = (
            (asked.site == self.name, "roster"),
            (asked.plan == self.terms.plan, "plan"),
            (1 <= asked.round <= self.terms.rounds and asked.attempt >= 1, "round"),
            (self._now() <= asked.deadline, "deadline"),
            (not seen or seen in known, "ledger"),
            (bool(seen) or not self._answered_another(asked), "ledger"),
        )
        for holds, code in rules:
            if not holds:
                return code, nothing
        verdict, base = read_base(
            asked,
            payload,
            self.terms.layout,
            open_sha256=self.terms.opened_sha256,
            norm_bound=math.inf,
        )
        return ("" if verdict.ok else verdict.code), base

    def _answered_another(self, asked: Invitation) -> bool:
        own = (asked.job, asked.round, asked.attempt)
        return any(
            entry.kind == "reserve" and entry.attempt[0] == asked.job and entry.attempt != own
            for entry in self.books.entries
        )

    def _answer(self, attempt: Attempt, asked: Invitation, base: Vector) -> Sealed | str:
        stored = self._stored(attempt, asked)
        if stored is not None:
            return stored
        if self.full:
            self._world.injected["full disk at a site"] += 1
            return "internal"
        if self._find("reserve", attempt) is None:
            self._append("reserve", attempt, asked.base_sha256)
            if asked.site_ledger_head:
                self._append("witness", attempt, asked.site_ledger_head)
        self.books.draws += 1
        self._act("noise")
        draw = self.books.draws if self.terms.fresh_noise else 0
        vector = self.update(asked.round, base, draw)
        if not may_leave(vector, self.terms.layout, math.inf).ok:
            return "internal"
        reply = Update(
            job=asked.job,
            site=self.name,
            round=asked.round,
            attempt=asked.attempt,
            base_sha256=asked.base_sha256,
            layout=self.terms.layout.digest,
            spec=self._spec,
            ledger_head=self.head,
            codec=self.terms.codec.name,
            metrics={},
        ).seal(self._key, self.terms.codec.encode(vector))
        self._put(attempt, reply)
        return self._commit(attempt, reply)

    def _stored(self, attempt: Attempt, asked: Invitation) -> Sealed | str | None:
        """Return the reply of an earlier try, or the code under which there will be none."""
        reply, sent = self.books.spool.get(attempt), self._find("commit", attempt)
        if sent is not None and (reply is None or sent.detail != _digest(reply)):
            return "internal"
        reserved = self._find("reserve", attempt)
        if reserved is not None and reserved.detail != asked.base_sha256:
            return "base"
        return None if reply is None else self._commit(attempt, reply)

    def _put(self, attempt: Attempt, reply: Sealed) -> None:
        self._act("before spool")
        self.books.spool[attempt] = reply
        self._act("after spool")

    def _commit(self, attempt: Attempt, reply: Sealed) -> Sealed:
        if self._find("commit", attempt) is None:
            self._append("commit", attempt, _digest(reply))
        return reply

    def _find(self, kind: str, attempt: Attempt) -> Entry | None:
        found = (e for e in self.books.entries if (e.kind, e.attempt) == (kind, attempt))
        return next(found, None)

    def _append(self, kind: str, attempt: Attempt, detail: str) -> None:
        self._act(f"before {kind}")
        head = sha256_hex(f"{self.head}|{kind}|{attempt}|{detail}".encode())
        self.books.entries.append(Entry(kind=kind, attempt=attempt, detail=detail, head=head))
        self._act(f"after {kind}")

    def _act(self, kind: str) -> None:
        self._world.act_at_site(self.name, kind)

    def _now(self) -> float:
        return EPOCH + self._world.time + self.skew_s

    def crashed(self) -> None:
        """Lose what a process holds in memory: nothing here, all of it is in the books."""


def _digest(reply: Sealed) -> str:
    return sha256_hex(reply.header, reply.payload)


def answer_of(site: SimSite, kind: str, request: Sealed) -> Sealed | None:
    """Return what the site answers to a question, or None where it answers one fixed error."""
    ask = {"query.hello": site.hello, "train": site.train, "evaluate": site.evaluate}[kind]
    try:
        return ask(request)
    except BadMessage:
        return None

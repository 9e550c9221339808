"""Everything that a run needs besides the post that reaches its sites."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.layout import Layout, Vector
from ..core.plan import Plan
from ..strategies.base import State, Strategy
from .admission import Admission, Member
from .clock import Clock, SystemClock
from .store import Release, Store

Evaluate = Callable[[Vector], dict[str, float]]
OnRound = Callable[[Release], None]


class OnEvent(Protocol):
    """Hears what happens, for a live view; nothing that is told is secret.

    ===========  ======================================================================
    kind         fields
    ===========  ======================================================================
    seen         ``site``: it said who it is
    gone         ``site``: its node is not connected any more
    invited      ``round``, ``attempt``, ``sites``, ``until`` (seconds since the epoch)
    lost         ``round``, ``site``, ``reason``: the post lost its answer; asked again
    answered     ``round``, ``site``, ``code``; round 0: a question beside the rounds
    late         ``round``, ``site``: the round closed without it
    round        ``round``, ``model_sha256``, ``sites``, ``refused``, ``late``, ``seconds``
    restored     ``round``, ``how``: a lost checkpoint is there again
    stopped      ``code``, ``reason``
    ===========  ======================================================================
    """

    def __call__(self, kind: str, **fields: Any) -> None:
        """Take one event in; what it raises ends the run."""
        ...


def _nonce() -> str:
    return secrets.token_hex(16)


def finish(strategy: Strategy, state: State, base: Vector, *, size: int) -> tuple[Vector, State]:
    """Return the next global vector (d + e,) and state; the constants after ``size`` = d stay."""
    start, constants = np.split(base, [size])
    vector, state = strategy.finish(state, start)
    return np.concatenate([vector, constants]) if len(constants) else vector, state


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Everything a run needs besides the post.

    ``opened`` (d + e,) is the open model's trainable vector and, after it, the constants that the
    sites fit together (``fitted``, e = 0 for most plans); ``layout`` is that of the d coordinates
    alone, which are what updates have and what a strategy sees. ``evaluate`` measures a global
    vector on a public set; ``epsilon`` gives each site's spend after a number of rounds; ``poll_s``
    is the pause between two looks at a post that does not wait by itself; ``nonce`` makes a
    fresh, unguessable text for each question.
    """

    plan: Plan
    layout: Layout
    opened: Vector
    members: Mapping[str, Member]
    strategy: Strategy
    admission: Admission
    store: Store
    key: Ed25519PrivateKey
    fitted: Layout = field(default_factory=lambda: Layout.of({}))
    evaluate: Evaluate | None = None
    epsilon: Callable[[int], dict[str, float]] | None = None
    on_round: OnRound | None = None
    on_answer: Callable[[int, str, str], None] | None = None
    on_event: OnEvent | None = None
    poll_s: float = 0.1
    clock: Clock = field(default_factory=SystemClock)
    nonce: Callable[[], str] = _nonce

    def finish(self, state: State, base: Vector) -> tuple[Vector, State]:
        """Return the next global vector (d + e,) and state; constants stay what they are."""
        return finish(self.strategy, state, base, size=self.layout.size)

    def tell(self, kind: str, **fields: Any) -> None:
        """Pass an event on to whoever listens."""
        if self.on_event:
            self.on_event(kind, **fields)

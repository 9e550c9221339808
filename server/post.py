"""How questions reach sites and answers come back, whatever carries them: Flower or a simulation.

The post carries signed bytes and tells a site's own words from its own failures: a question
or an answer that it lost is no answer, and the site may be asked again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from ..core.messages import Sealed


@dataclass(frozen=True, slots=True, kw_only=True)
class Malformed:
    """An answer that is not signed bytes in the one form; ``code`` is its reason code."""

    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The post's own word that no answer will come; ``gone``: the node is not there any more."""

    reason: Literal["failed", "unavailable", "crashed", "gone"]

    @property
    def gone(self) -> bool:
        """Return whether the node itself is unavailable, not one message."""
        return self.reason == "gone"


Answer = Sealed | Malformed | Lost


class PostDown(Exception):
    """The post cannot be reached just now; nothing was sent, and a later try may work."""


class Post(Protocol):
    """Carries messages; every method may raise ``PostDown``."""

    def nodes(self) -> Collection[int]:
        """Return the ids of the nodes that are connected; a site may change its id."""
        ...

    def share(self, payload: bytes) -> object:
        """Return a payload made ready once, for many questions: it is in memory once."""
        ...

    def send(self, node: int, kind: str, sealed: Sealed, shared: object | None = None) -> str:
        """Send a question of that kind; return its id. ``shared`` is ``share`` of its payload."""
        ...

    def fetch(self, ids: Iterable[str], *, most: int) -> Iterator[tuple[str, Answer]]:
        """Yield the answers that are there, by the id of their question, one at a time.

        An answer whose payload is longer than ``most`` bytes is ``Malformed``, code ``shape``.
        """
        ...

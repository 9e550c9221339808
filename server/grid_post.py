"""The post over a Flower Grid: the in-process one, a SuperLink's or Ray's."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from flwr.app import Array, Message
from flwr.serverapp import Grid
from httpx import TransportError

from ..core.messages import BadMessage, Sealed
from ._flwr import array_of, pack, unpack
from ._flwr_pace import at_most, bound_objects, fault_of
from .post import Answer, Lost, Malformed, PostDown

_LOST: dict[int, Literal["failed", "unavailable", "crashed", "gone"]] = {
    1: "failed",  # the ClientApp could not be loaded
    3: "unavailable",  # the question is not there any more
    4: "unavailable",  # nor the reply
    5: "gone",  # the node did not answer its heartbeats
    7: "failed",  # the app bundle was not accepted
    8: "crashed",  # the ClientApp's process ended
}
"""Errors that Flower makes by itself. A site of ours says 2 alone, and that is its answer."""


_SMALL_AT_ONCE = 32  # replies that carry no payload: the Grid bounds each at about a megabyte


class GridPost:
    """Sends and fetches by message id; the source that a reply claims is never looked at.

    A SuperLink's Grid holds all the replies of one look in memory: ``at_once`` bounds how many
    (default: no bound, for a Grid in this process, where they are in memory anyhow).
    """

    def __init__(self, grid: Grid, *, at_once: int | None = None) -> None:
        self._grid, self._at_once = grid, at_once
        bound_objects(grid)

    def nodes(self) -> Collection[int]:
        """Return the ids of the nodes that the Grid has heard of lately."""
        with _reachable():
            return list(self._grid.get_node_ids())

    def share(self, payload: bytes) -> object:
        """Return the array that carries a payload; messages share its bytes."""
        return array_of(payload)

    def send(self, node: int, kind: str, sealed: Sealed, shared: object | None = None) -> str:
        """Push one message; raises ``PostDown`` also when the Grid took none in."""
        array = shared if isinstance(shared, Array) else None
        message = Message(pack(sealed, array), dst_node_id=node, message_type=kind)
        with _reachable():
            ids = list(self._grid.push_messages([message]))
        if not ids or not ids[0]:
            raise PostDown  # Flower logs it and goes on without an id
        return ids[0]

    def fetch(self, ids: Iterable[str], *, most: int) -> Iterator[tuple[str, Answer]]:
        """Yield what has arrived, ``at_once`` replies at a time, more where they are small."""
        wanted = list(ids)
        step = self._at_once or len(wanted) or 1
        if most == 0:
            step = max(step, _SMALL_AT_ONCE)
        for start in range(0, len(wanted), step):
            with _reachable(), at_most(most):
                found = deque(self._grid.pull_messages(wanted[start : start + step]))
            while found:
                message = found.popleft()
                question, answer = message.metadata.reply_to_message_id, _answer(message, most)
                del message  # the array it carries is another copy of the payload
                yield question, answer


def _answer(message: Message, most: int) -> Answer:
    if message.has_error():
        if (fault := fault_of(message.error.reason)) is not None:
            return Malformed(code=fault)
        reason = _LOST.get(message.error.code)
        return Lost(reason=reason) if reason else Malformed(code="error")
    try:
        return unpack(message, most)
    except BadMessage as error:
        return Malformed(code=error.code)


@contextmanager
def _reachable() -> Generator[None]:
    """Turn a failing connection into ``PostDown``; a refused call is a stop like any other."""
    try:
        yield
    except (ConnectionError, TimeoutError, TransportError) as error:
        raise PostDown from error

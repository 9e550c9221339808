"""The ServerApp's way to fetch replies: as soon as they are whole, and no more of them than fits.

Flower waits at least 1 s, then 2, 4, ... 10 s for an object that is still on its way; where one
looks for replies several times a second, that pause is most of a short round. It also takes in a
reply of any size, and an exception of its own over a reply that cannot be read ends the run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

import httpx
from flwr.app import Message
from flwr.serverapp import Grid
from flwr.supercore.inflatable.inflatable_utils import (
    ObjectPullError,
    inflate_object_from_contents,
    pull_objects,
)
from flwr.superlink.grid import http_grid

OBJECT_S = 0.05
PULL_S = 120.0
"""How long one reply's missing objects are waited for, while all others wait; Flower's is 2 h.

Then the site is asked again: what it has uploaded by then is there already.
"""
EXTRA_BYTES = 1 << 20
"""What a reply may hold beside its payload, counted twice: header, names and Flower's own."""

_FRAME = 1024  # what the answer that brings an object holds beside it
_OBJECTS = 64  # and one more for each megabyte; Flower cuts arrays into far larger pieces
_FAULTS = {"collegium-too-large": "shape", "collegium-unreadable": "schema"}
_most: ContextVar[int | None] = ContextVar("most", default=None)
_room: ContextVar[int | None] = ContextVar("room", default=None)  # set in Flower's own threads


class _Read(dict[str, bytes]):
    """A reply that is inflated already, in the place of the objects that it is made from."""

    def __init__(self, message: Message) -> None:
        super().__init__()
        self.message = message


def fetch_promptly() -> None:
    """Let the Grid of this process fetch replies by ``pull`` and take what that has read."""
    setattr(http_grid, "pull_objects", pull)  # noqa: B010
    setattr(http_grid, "inflate_object_from_contents", _inflated)  # noqa: B010


@contextmanager
def at_most(payload: int) -> Generator[None]:
    """Bound each reply that is pulled meanwhile by what carries ``payload`` bytes."""
    token = _most.set(2 * payload + EXTRA_BYTES)
    try:
        yield
    finally:
        _most.reset(token)


def bound_objects(grid: Grid) -> None:
    """Let a SuperLink's Grid look at an object's announced size before it is in memory."""
    if isinstance(grid, http_grid.HttpGrid):
        client: httpx.Client = getattr(getattr(grid, "_runtime_client"), "_client")  # noqa: B009
        hooks = client.event_hooks
        if _look not in hooks["response"]:
            client.event_hooks = {**hooks, "response": [*hooks["response"], _look]}


def _look(response: httpx.Response) -> None:
    """Refuse a body that is longer than what this thread may still take in."""
    room, size = _room.get(), response.headers.get("content-length", "")
    if room is not None and size.isdecimal() and int(size) > room:
        raise ObjectPullError("", "collegium-too-large")


def fault_of(reason: str | None) -> str | None:
    """Return the reason code of a reply that ``pull`` has given up, by the error's text.

    A site that writes such a text itself only has its own answer refused.
    """
    return next((code for mark, code in _FAULTS.items() if mark in (reason or "")), None)


def pull(object_ids: list[str], pull_object_fn: Callable[[str], bytes]) -> dict[str, bytes]:
    """Return a reply, inflated; ``object_ids`` are in Flower's order, the message's own is last.

    Raises ``ObjectPullError``, which the Grid turns into an error in the reply's place: for one
    that is too large at the object that goes beyond (``bound_objects``: before it is read, else
    after it, with one more for each other thread of Flower's), and for one that is no message.
    """
    most, taken, lock = _most.get(), 0, threading.Lock()
    if most is not None and len(object_ids) > _OBJECTS + (most >> 20):
        raise ObjectPullError(object_ids[-1], "collegium-too-large")

    def bounded(object_id: str) -> bytes:
        nonlocal taken
        token = _room.set(None if most is None else most - taken + _FRAME)
        try:
            content = pull_object_fn(object_id)
        finally:
            _room.reset(token)
        with lock:
            taken += len(content)
            if most is not None and taken > most:
                raise ObjectPullError(object_id, "collegium-too-large")
        return content

    contents = pull_objects(object_ids, bounded, initial_backoff=OBJECT_S, max_time=PULL_S)
    try:
        found = inflate_object_from_contents(object_ids[-1], contents)
    except Exception:  # whatever a peer's bytes make Flower raise: that reply is no answer
        found = None
    if not isinstance(found, Message):
        raise ObjectPullError(object_ids[-1] if object_ids else "", "collegium-unreadable")
    return _Read(found)


def _inflated(message_id: str, contents: dict[str, bytes]) -> object:
    """Return what ``pull`` has read."""
    if isinstance(contents, _Read):
        return contents.message
    return inflate_object_from_contents(message_id, contents)

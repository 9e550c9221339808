"""An in-process Flower Grid: the same ServerApp and ClientApps, without servers and without Ray.

Nodes are ClientApps in this process, called by a pool of threads (torch and NumPy release the
interpreter lock where the work is). One node handles one message at a time, as a SuperNode
does; replies appear as they are ready.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, cast

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.run import Run

from ._flwr import become_server, context_of, stamp

logger = logging.getLogger(__name__)

App = Callable[[Message, Context], Message]
"""What a ClientApp is when it is called."""

CLIENT_APP_RAISED = 2
"""Flower's error code; the reason it carries here is fixed, never an exception's text."""


class LocalGrid(Grid):
    """A Grid over ``apps``; close it, or use it as a context manager, to stop its threads.

    ``workers`` threads (default: one per core, at most one per node), each started with
    ``prepare``; ``wait_s`` is how long ``pull_messages`` waits when nothing is ready.
    """

    def __init__(
        self,
        apps: Iterable[App],
        *,
        workers: int | None = None,
        prepare: Callable[[], None] | None = None,
        wait_s: float = 0.05,
    ) -> None:
        self._run = become_server()
        nodes = list(apps)
        self._apps: Mapping[int, App] = {number + 2: app for number, app in enumerate(nodes)}
        self._contexts = {node: context_of(node, node - 2, len(nodes)) for node in self._apps}
        self._queues: dict[int, deque[Message]] = {node: deque() for node in self._apps}
        self._busy: set[int] = set()
        self._replies: dict[str, Message] = {}
        self._news = threading.Condition()
        self._sent = 0
        self._wait_s = wait_s
        count = min(workers or os.cpu_count() or 1, max(1, len(nodes)))
        self._pool = ThreadPoolExecutor(
            count, thread_name_prefix="site", initializer=prepare or _nothing
        )

    def set_run(self, run: Run) -> None:
        """Set the run whose name messages carry."""
        self._run = run

    @property
    def run(self) -> Run:
        """Return the run."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Return a message of this run (Flower deprecates this in favour of ``Message``)."""
        return Message(
            content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl
        )

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._apps)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Queue messages for their nodes; return their ids at once."""
        ids: list[str] = []
        with self._news:
            for message in messages:
                self._sent += 1
                message_id = f"local-{self._sent}"
                stamp(message, message_id)
                node = message.metadata.dst_node_id
                self._queues[node].append(message)
                ids.append(message_id)
                if node not in self._busy:
                    self._busy.add(node)
                    self._pool.submit(self._work, node)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to ``message_ids`` that are ready, waiting briefly for the first."""
        wanted = list(message_ids)
        with self._news:
            ready = [name for name in wanted if name in self._replies]
            if not ready and wanted:
                self._news.wait(self._wait_s)
                ready = [name for name in wanted if name in self._replies]
            return [self._replies.pop(name) for name in ready]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push messages and return their replies (all of them, or those of ``timeout`` seconds)."""
        import time

        waiting = set(self.push_messages(messages))
        until = None if timeout is None else time.monotonic() + timeout
        replies: list[Message] = []
        while waiting and (until is None or time.monotonic() < until):
            arrived = list(self.pull_messages(waiting))
            waiting -= {reply.metadata.reply_to_message_id for reply in arrived}
            replies += arrived
        return replies

    def close(self) -> None:
        """Stop the threads; a message that is being handled is finished first."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _work(self, node: int) -> None:
        """Handle the oldest message of a node, then queue up again if there are more."""
        with self._news:
            message = self._queues[node].popleft()
        reply = self._handle(node, message)
        with self._news:
            self._sent += 1
            question = message.metadata.message_id
            stamp(reply, f"local-{self._sent}", reply_to=question)
            self._replies[question] = reply
            if self._queues[node]:
                self._pool.submit(self._work, node)
            else:
                self._busy.discard(node)
            self._news.notify_all()

    def _handle(self, node: int, message: Message) -> Message:
        try:
            reply = cast("object", self._apps[node](message, self._contexts[node]))
            if isinstance(reply, Message):
                return reply
            logger.error("the app of node %d returned no message", node)
        except (Exception, SystemExit):  # an app that exits does not take the Grid with it
            logger.exception("the app of node %d raised", node)
        error = Error(code=CLIENT_APP_RAISED, reason="the ClientApp raised")
        return Message(error, reply_to=message)


def _nothing() -> None:
    """Prepare a thread that needs no preparation."""

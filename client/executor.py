"""The site is its own executor: it takes tasks from its SuperNode and answers in this process.

No process, import or model load per message, and nothing that travels is unpacked or run: the
app bundle's hash must be one that the consortium signed, and the app that answers is installed.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Collection
from typing import Protocol

from flwr.app import Context, Message

from ._flwr_runtime import LinkDown, Task

logger = logging.getLogger(__name__)

REFUSED_APP = "the app bundle is not one that the consortium signed"
NOT_ANSWERED = "the message was not answered"
_LOOK_S = 0.2  # between two looks at a SuperNode that has no task
_DOWN_S = 1.0  # before a SuperNode that does not answer is asked again


class Link(Protocol):
    """Where tasks come from; ``next_task`` raises ``LinkDown`` when nobody answers."""

    def next_task(self) -> Task | None:
        """Return the oldest task, None when there is none."""
        ...


class Executor:
    """Answers one task after the other until it is told to stop."""

    def __init__(
        self,
        link: Link,
        app: Callable[[Message, Context], Message],
        *,
        apps: Collection[str],
        grid_s: float,
    ) -> None:
        """``apps`` are the ``sha256:`` digests of bundles that may ask this site anything.

        Replies leave on multiples of ``grid_s`` seconds after their request was taken: how long
        the records took to train on is not told to a fraction of it. 0 sends at once.
        """
        self._link, self._app = link, app
        self._apps, self._grid_s = frozenset(apps), grid_s

    def run(self, stop: threading.Event) -> None:
        """Take tasks until ``stop`` is set; a SuperNode that is away is waited for."""
        away = False
        while not stop.is_set():
            try:
                answered = self.step(stop)
            except LinkDown as error:
                if not away:
                    logger.warning("the SuperNode does not answer (%s); waiting for it", error)
                away = True
                stop.wait(_DOWN_S)
                continue
            if away:
                logger.info("the SuperNode answers again")
                away = False
            if not answered:
                stop.wait(_LOOK_S)

    def step(self, stop: threading.Event) -> bool:
        """Answer the oldest task; return False when there was none. Raises ``LinkDown``."""
        began = time.monotonic()
        task = self._link.next_task()
        if task is None:
            return False
        kind = task.message.metadata.message_type
        if task.bundle_sha256 not in self._apps:
            logger.error("a %s message of an unsigned app bundle was refused", kind)
            task.refuse(REFUSED_APP)
            return True
        try:
            reply = self._app(task.message, task.context)
        except Exception:
            # an exception's text may hold a record: it stays in this site's own log
            logger.exception("a %s message could not be answered", kind)
            task.refuse(NOT_ANSWERED)
            return True
        except BaseException:
            task.drop()
            raise
        self._wait_for_grid(began, stop)
        task.reply(reply)
        logger.info("answered a %s message", kind)
        return True

    def _wait_for_grid(self, began: float, stop: threading.Event) -> None:
        if self._grid_s > 0:
            due = math.ceil((time.monotonic() - began) / self._grid_s) * self._grid_s
            stop.wait(max(0.0, began + due - time.monotonic()))

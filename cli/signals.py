"""What a signal means to a run: SIGTERM ends it as Ctrl-C does, in order and resumable."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def sigterm_interrupts() -> Generator[None]:
    """Raise ``KeyboardInterrupt`` in the main thread on SIGTERM, as on Ctrl-C.

    Without it a run that is told to end leaves without a word, and its children are killed
    instead of stopped. Outside the main thread, where Python takes no handlers, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

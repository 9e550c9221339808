"""When a site stops a training by itself: its deadline passed, or its own people said so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..core.files import write_atomic
from ..privacy.ledger import Ledger


def give_up(ledger: Ledger, job: str, note: str) -> None:
    """Abort every open reserve of a job: none is refunded, and none can be used again."""
    done = {
        (entry.round, entry.attempt)
        for entry in ledger.entries()
        if entry.job == job and entry.kind in ("commit", "abort")
    }
    for entry in ledger.entries():
        key = (entry.round, entry.attempt)
        if entry.kind == "reserve" and entry.job == job and key not in done:
            ledger.abort(job=job, round=entry.round, attempt=entry.attempt, note=note)


class Halt(Exception):
    """A training ends between two private steps; ``code`` is of the closed list of declines."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(code)


class OtherBase(Exception):
    """An attempt belongs to another base model: the coordinator was set back and went elsewhere."""


class Brake:
    """What a site's own people have stopped: single jobs for good, or everything for now.

    With a ``path`` the cancelled jobs outlive the process: one id per line.
    """

    def __init__(self, path: Path | None = None) -> None:
        """Read the cancelled jobs, if there is a file of them."""
        self._path = path
        self.paused = False
        lines = path.read_text("utf-8").split() if path is not None and path.is_file() else []
        self._jobs = frozenset(lines)

    @property
    def cancelled(self) -> frozenset[str]:
        """Return the jobs that this site will not train for any more."""
        return self._jobs

    def cancel(self, job: str) -> None:
        """Stop a job for good, durably; a training that runs ends before its next step."""
        self._jobs |= {job}
        if self._path is not None:
            text = "".join(f"{name}\n" for name in sorted(self._jobs))
            write_atomic(self._path, text.encode(), mode=0o600)

    def stops(self, job: str) -> bool:
        """Return whether the job is cancelled or the site is paused."""
        return self.paused or job in self._jobs

    def check(self, job: str) -> None:
        """Raise ``Halt`` when the job is cancelled or the site is paused."""
        if self.stops(job):
            raise Halt("cancelled")

    def watch(self, job: str, deadline: float, now: Callable[[], float]) -> Callable[[], None]:
        """Return what a training calls before each private step; it raises ``Halt``.

        ``deadline`` and ``now`` are in seconds since the epoch. The deadline is the site's own: one
        that the coordinator could choose, and choose again, would measure the records for it.
        """

        def before_step() -> None:
            self.check(job)
            if now() > deadline:
                raise Halt("deadline")

        return before_step

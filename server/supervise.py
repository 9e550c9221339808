"""Keeps processes running, and a job going over as many Flower runs as it takes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..core.errors import (
    CollegiumError,
    Interrupted,
    InvalidInput,
    MissingInput,
    NotAvailable,
    Refused,
)
from .coordinator_state import end_holder, holder_of
from .events import Event, EventReader
from .run_folder import load_stage

logger = logging.getLogger(__name__)

STAGE = "federation"
"""The stage that is durable once every round is."""

_LONGEST_PAUSE_S = 60.0
_STEADY_S = 60.0  # a process that ran so long is not failing at once: its pauses begin anew


# --- processes ----------------------------------------------------------------------------------


class Process(Protocol):
    """What ``Keeper`` needs of a child process."""

    @property
    def name(self) -> str: ...
    @property
    def alive(self) -> bool: ...
    @property
    def exit_code(self) -> int | None: ...
    @property
    def last_words(self) -> str: ...
    def start(self) -> None: ...


@dataclass(slots=True)
class _Kept:
    process: Process
    started_at: float
    failures: int = 0
    start_at: float | None = None


class Keeper:
    """Starts a process again when it has ended, after a pause that doubles from 1 s to 60 s.

    Each stands alone: a SuperLink that ends takes nobody with it. ``on_restart`` hears the name
    of what ended and how: its exit code, and the last line that it wrote. A process that ends
    with a ``final`` exit code would end so again: it is not started any more.
    """

    def __init__(
        self,
        processes: Iterable[Process],
        *,
        on_restart: Callable[[str, str], None] | None = None,
        final: Collection[int] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock, self._final = clock, final
        self._on_restart = on_restart
        self._kept = [_Kept(process, clock()) for process in processes]

    def tick(self) -> None:
        """Look once at every process; call it several times a second.

        Raises ``Interrupted`` when one has ended with a final exit code.
        """
        now = self._clock()
        for kept in self._kept:
            if not kept.process.alive and kept.process.exit_code in self._final:
                raise Interrupted(
                    f"{kept.process.name} has ended: {how_it_ended(kept.process)}",
                    why="it would end so again",
                    cure="mend that, then --resume",
                )
            if kept.process.alive:
                if now - kept.started_at > _STEADY_S:
                    kept.failures = 0
            elif kept.start_at is None:
                pause = min(2.0**kept.failures, _LONGEST_PAUSE_S)
                kept.failures, kept.start_at = kept.failures + 1, now + pause
                name, how = kept.process.name, how_it_ended(kept.process)
                logger.warning("%s ended (exit code %s); again in %g s", name, how, pause)
                if self._on_restart:
                    self._on_restart(name, how)
            elif now >= kept.start_at:
                kept.start_at, kept.started_at = None, now
                kept.process.start()


def how_it_ended(process: Process) -> str:
    """Return a process's exit code and its last words: '75; it said: the disk is full'."""
    said = process.last_words
    return f"{process.exit_code}; it said: {said}" if said else f"{process.exit_code}"


# --- a job over its Flower runs -----------------------------------------------------------------


class FlowerRun(Protocol):
    """One Flower run as the Control API tells it."""

    @property
    def status(self) -> str: ...
    @property
    def substatus(self) -> str: ...
    @property
    def over(self) -> bool: ...


class Flower(Protocol):
    """What is asked of the SuperLink; raises ``Interrupted`` while it cannot be reached."""

    def submit(self, app: bytes, config: dict[str, str]) -> int: ...
    def run(self, run_id: int) -> FlowerRun | None: ...
    def stop(self, run_id: int) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for what, in seconds."""

    look_s: float = 0.1
    ask_s: float = 1.0
    start_s: float = 180.0  # from submission to a ServerApp at work
    gone_s: float = 3.0  # a ServerApp that is gone so long will not come back
    unreachable_s: float = 60.0  # without --supervise; a kept SuperLink is back long before
    pause_s: float = 1.0


@dataclass(slots=True, kw_only=True)
class Pursuit:
    """Follows one job until it is finished, over several Flower runs where ``supervise`` is on.

    ``on_event`` hears every event of the run; ``on_flower`` what happens around it, in words.
    """

    flower: Flower
    app: bytes
    job: str
    folder: Path
    supervise: bool
    on_event: Callable[[Event], None]
    on_flower: Callable[[str], None]
    patience: Patience = field(default_factory=Patience)
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _reader: EventReader = field(init=False)
    _stopped: Event | None = field(init=False, default=None)
    _run_id: int | None = field(init=False, default=None)
    _progress: bool = field(init=False, default=False)  # a round was durable since the last pause

    def __post_init__(self) -> None:
        self._reader = EventReader(self.folder)
        self._reader.skip()

    def follow(self) -> None:
        """Return once every round is durable and the sites have been asked for their reports.

        Raises what stopped the run: ``Interrupted`` where --resume goes on, else the error that
        the ServerApp told.
        """
        failures = 0
        while not self._finished():
            try:
                self._one_flower_run()
                if self._finished():
                    break
                error = self._why()
            except Interrupted as unreachable:
                error = unreachable
            if not self.supervise or not isinstance(error, Interrupted):
                raise error
            failures = 0 if self._progress else failures
            self._progress = False
            pause = min(self.patience.pause_s * 2**failures, _LONGEST_PAUSE_S)
            failures += 1
            self.on_flower(f"{error.what}; going on in {pause:g} s")
            self.sleep(pause)
        self._tell()

    def abandon(self) -> None:
        """Stop the Flower run that is followed; every durable round stays."""
        if self._run_id is not None:
            try:
                self.flower.stop(self._run_id)
            except Exception:
                logger.warning("the Flower run %d could not be stopped", self._run_id)
            try:
                end_holder(self.folder)
            except CollegiumError as error:  # what stopped us is the news, not this
                logger.warning("%s", error.message())

    # --- one Flower run -------------------------------------------------------------------------

    def _one_flower_run(self) -> None:
        """Adopt the Flower run that is at work, or submit one; return when it is over."""
        self._stopped = None
        self._run_id = self._adopted()
        if self._run_id is None:
            end_holder(self.folder)
            self._run_id = self.flower.submit(self.app, {"job": self.job})
        begun, asked, seen_at, reached_at = self.clock(), 0.0, None, self.clock()
        while not self._finished():
            self._tell()
            if (now := self.clock()) - asked >= self.patience.ask_s:
                asked = now
                try:
                    found = self.flower.run(self._run_id)
                    reached_at = now
                except Interrupted:
                    if not self.supervise and now - reached_at > self.patience.unreachable_s:
                        raise
                else:
                    if found is None or found.over:
                        break
                if (holder := holder_of(self.folder)) and holder.run_id == self._run_id:
                    seen_at = now
                elif self._lost(now, begun, seen_at):
                    self._stop_quietly()
                    break
            self.sleep(self.patience.look_s)
        self._tell()

    def _lost(self, now: float, begun: float, seen_at: float | None) -> bool:
        """Whether no ServerApp is at work, long before Flower's lease would tell."""
        if seen_at is None:
            return now - begun > self.patience.start_s
        return now - seen_at > self.patience.gone_s

    def _adopted(self) -> int | None:
        holder = holder_of(self.folder)
        if holder is None:
            return None
        found = self.flower.run(holder.run_id)
        if found is None or found.over:
            return None
        self.on_flower("a ServerApp is at work already; following it")
        return holder.run_id

    def _stop_quietly(self) -> None:
        if self._run_id is not None:
            try:
                self.flower.stop(self._run_id)
            except Exception:  # it may be over by now; a new run is submitted in any case
                logger.warning("the Flower run %d could not be stopped", self._run_id)

    def _tell(self) -> None:
        for event in self._reader.new():
            if event["kind"] == "stopped":
                self._stopped = event
            elif event["kind"] == "started":
                self._stopped = None
            elif event["kind"] == "round":
                self._progress = True
            self.on_event(event)

    def _finished(self) -> bool:
        return load_stage(self.folder, STAGE) is not None

    def _why(self) -> CollegiumError:
        if self._stopped is not None:
            return told_error(self._stopped)
        return Interrupted(
            "the ServerApp ended before the run did",
            why="it was killed, or could not start; every durable round is kept",
            cure="--resume goes on; log.jsonl in the run folder may know more",
        )


def told_error(event: Event) -> CollegiumError:
    """Return the error that a ``stopped`` event tells of, as the ServerApp raised it."""
    known = {
        65: InvalidInput,
        66: MissingInput,
        69: NotAvailable,
        75: Interrupted,
        77: Refused,
    }
    kind = known.get(int(event.get("exit_code", 70)), CollegiumError)
    return kind(
        str(event.get("what", "the run stopped")),
        why=str(event.get("why", "")),
        cure=str(event.get("cure", "")),
    )

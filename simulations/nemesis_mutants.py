"""Planted bugs: each is a mistake that an engine or a site could make, and must be caught.

A check that has never failed shows nothing. Each bug here replaces one class of a simulation;
``first_catch`` says at which seed the invariants tell it from the real thing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load

from ..core.errors import ACCEPT, Verdict
from ..core.layout import Vector
from ..core.messages import Invitation, Report, Sealed, Update
from ..server import rounds
from ..server.admission import Admission, Expected, Member
from ..server.drive import Drive, Task
from ..server.post import Malformed, Post
from ..server.store import Store
from ..strategies.base import State
from .nemesis import FOLDER, Kinds, play
from .nemesis_check import breaks
from .nemesis_site import Attempt, SimSite


class FoldsTwice(Drive):
    """Counts an update a second time."""

    def _fold(self, site: str) -> None:
        super()._fold(site)
        if site == self._task.plan.sites[0].name:
            super()._fold(site)


class CountsLate(Drive):
    """Takes an answer to an earlier round for one to the open round."""

    def _drop_earlier(self, round: int) -> None:
        return

    def _judge(self, site: str, expected: Expected, answer: Sealed | Malformed) -> str:
        code = super()._judge(site, expected, answer)
        if code == rounds.ADMITTED and isinstance(answer, Sealed):
            self._task.store.keep_update(self._committed + 1, site, answer)
        return code

    def _answered(self, site: str, round: int, code: str) -> rounds.Answered:
        return super()._answered(site, self._committed + 1, code)


class ForgetsDeadlines(Drive):
    """Never notices that time has passed while it waits for an answer."""

    def _listen(self, state: rounds.State) -> list[rounds.Event]:
        events = super()._listen(state)
        if state.phase != "open":
            return events
        return [event for event in events if not isinstance(event, rounds.TimePassed)]


class _AnyFigure(dict[str, tuple[float, float]]):
    """Every name, and every value of it."""

    def __contains__(self, key: object) -> bool:
        return True

    def __missing__(self, key: str) -> tuple[float, float]:
        return -math.inf, math.inf


class TakesAnyReport(Drive):
    """Takes whatever figures a site writes into its report."""

    def __init__(self, post: Post, task: Task) -> None:
        super().__init__(post, task)
        self._courier._figures = _AnyFigure()


class TakesAnyRound(Admission):
    """Does not compare round, attempt and base with the invitation."""

    def _answers(self, site: str, update: Update, member: Member, expected: Expected) -> Verdict:
        same = replace(
            expected,
            round=update.round,
            attempt=update.attempt,
            base_sha256=update.base_sha256,
        )
        return super()._answers(site, update, member, same)


class TakesAnyVector(Admission):
    """Looks neither for NaN nor at the norm."""

    def _plausible(self, site: str, vector: Vector) -> Verdict:
        return ACCEPT


class TrustsItsDisk(Store):
    """Does not compare a checkpoint with its digest."""

    def latest(self) -> tuple[int, Vector, State] | None:
        history = self.history()
        if not history:
            return None
        raw = self._disk.read(FOLDER / f"round-{history[-1].round:06d}.safetensors")
        try:
            tensors = load(raw or b"")
        except SafetensorError:
            return super().latest()
        vector = tensors.pop("vector")
        return history[-1].round, vector, {name[6:]: value for name, value in tensors.items()}


class GoesBack(Store):
    """Forgets a round whose checkpoint is damaged, and begins it anew."""

    def latest(self) -> tuple[int, Vector, State] | None:
        found = super().latest()
        with self._db:
            self._db.execute("DELETE FROM rounds WHERE round > ?", (found[0] if found else 0,))
        return found


class DrawsAgain(SimSite):
    """Answers a repeated invitation with fresh noise."""

    def _stored(self, attempt: Attempt, asked: Invitation) -> Sealed | str | None:
        return None

    def _commit(self, attempt: Attempt, reply: Sealed) -> Sealed:
        return reply


class ForgetsToSync(SimSite):
    """Loses the newest attempt's entries and bytes when its process dies."""

    def crashed(self) -> None:
        if not self.books.entries:
            return
        newest = self.books.entries[-1].attempt
        self.books.entries = [e for e in self.books.entries if e.attempt != newest]
        self.books.spool.pop(newest, None)


class AnswersAnyBase(SimSite):
    """Trains again, under the same reserve, when the base model is another one."""

    def _stored(self, attempt: Attempt, asked: Invitation) -> Sealed | str | None:
        found = super()._stored(attempt, asked)
        if found == "base":
            self.books.spool.pop(attempt, None)
            return None
        return found

    def _commit(self, attempt: Attempt, reply: Sealed) -> Sealed:
        return reply


class ChargesNothing(SimSite):
    """Reserves only what it has not answered before a restart of the coordinator."""

    def _append(self, kind: str, attempt: Attempt, detail: str) -> None:
        if kind == "reserve" and attempt[1] > 1:
            kind = "witness"
        super()._append(kind, attempt, detail)


class TellsItsKey(SimSite):
    """Writes its private key into what it reports."""

    def evaluate(self, request: Sealed) -> Sealed:
        asked = Invitation.open(request, self.terms.coordinator)
        return Report(
            job=asked.job,
            site=self.name,
            model_sha256=asked.base_sha256,
            metrics={self._key.private_bytes_raw().hex(): 0.5},
        ).seal(self._key)


MUTANTS: Mapping[str, Kinds] = {
    "fold a site twice": Kinds(drive=FoldsTwice),
    "count a late reply": Kinds(drive=CountsLate),
    "forget the deadline": Kinds(drive=ForgetsDeadlines),
    "accept any report": Kinds(drive=TakesAnyReport),
    "accept a stale round": Kinds(admission=TakesAnyRound),
    "accept any vector": Kinds(admission=TakesAnyVector),
    "trust the checkpoint": Kinds(store=TrustsItsDisk),
    "undo a durable round": Kinds(store=GoesBack),
    "fresh noise on repetition": Kinds(site=DrawsAgain),
    "forget the fsync": Kinds(site=ForgetsToSync),
    "skip the base check": Kinds(site=AnswersAnyBase),
    "answer without a charge": Kinds(site=ChargesNothing),
    "tell the private key": Kinds(site=TellsItsKey),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Catch:
    """At which seed a planted bug was caught, and what gave it away."""

    seed: int
    found: str


def first_catch(name: str, seeds: Iterable[int]) -> Catch | None:
    """Return the first seed at which the bug breaks an invariant, or None among all of them."""
    kinds: Any = MUTANTS[name]
    for seed in seeds:
        try:
            found = breaks(play(seed, kinds))
        except Exception as error:  # a bug may also end in an exception that nobody expects
            found = [f"raised {type(error).__name__}"]
        if found:
            return Catch(seed=seed, found=found[0])
    return None

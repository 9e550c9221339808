"""What a run goes on from: the newest whole checkpoint, and the rounds that can be made again.

A damaged checkpoint loses no round. Its model is a function of the checkpoint before it and of
the updates that the sites signed, which are kept: they are folded again, in roster order, and
give the same bytes, which the round's row names by digest. Where a kept update is damaged too,
the same sites are asked for the same (job, round, attempt) and base, and answer with the bytes
that they have spooled: no site trains, draws noise or is charged a second time. A new attempt
would charge them anew and give another model than the one that was committed, so none is begun.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from ..core.digest import sha256_hex
from ..core.errors import InvalidInput
from ..core.layout import Vector
from ..core.messages import BadMessage, Sealed, Update
from ..strategies.base import State
from .store import Release
from .task import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a run goes on: its last whole round, the model and state (d,) that came out of it.

    ``lost`` are durable rounds after it, by number, that only the sites can give again.
    """

    round: int
    vector: Vector
    state: State
    lost: dict[int, Release]
    heads: dict[str, str]


def standing(task: Task) -> Standing:
    """Return where the run goes on, mending every lost checkpoint that kept updates can mend.

    Raises ``InvalidInput`` when kept updates that are whole do not give the committed model.
    """
    latest = task.store.latest()
    number, vector, state = latest or (0, task.opened, task.strategy.init(task.layout))
    lost: dict[int, Release] = {}
    history = task.store.history()
    for release in history[number:]:
        rebuilt = None if lost else _rebuild(task, release, vector, state)
        if rebuilt is None:
            lost[release.round] = release
            continue
        vector, state = rebuilt
        task.store.mend(release, vector, state)
        number = release.round
        logger.warning("round %d was computed again from the kept updates", number)
        task.tell("restored", round=number, how="computed again from the kept updates")
    heads = dict(history[-1].heads) if history else {}
    return Standing(round=number, vector=vector, state=state, lost=lost, heads=heads)


def _rebuild(
    task: Task, release: Release, base: Vector, state: State
) -> tuple[Vector, State] | None:
    """Return what the round's kept updates give, or None where one is damaged."""
    if sha256_hex(base.astype("<f4", copy=False).tobytes()) != release.prev_sha256:
        raise InvalidInput(
            f"round {release.round} does not begin where the rounds before it end",
            why="the checkpoint or the open model is another one",
            cure="restore the run's folder from a backup",
        )
    for site in release.sites:
        kept = task.store.kept_update(release.round, site)
        if kept is None or not _is_whole(task, release, site, kept):
            logger.warning("round %d: the kept update of %s is damaged", release.round, site)
            return None
        state = task.strategy.fold(state, task.admission.decode(kept), task.members[site].weight)
    return task.finish(state, base)


def _is_whole(task: Task, release: Release, site: str, kept: Sealed) -> bool:
    """Return whether these are the bytes that the site signed for this very round."""
    try:
        update = Update.open(kept, task.members[site].public_key)
    except BadMessage:
        return False
    given = (update.job, update.site, update.round, update.base_sha256)
    return given == (task.store.job, site, release.round, release.prev_sha256)

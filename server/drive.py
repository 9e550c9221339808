"""Executes the round engine's actions over any post and by any clock; knows no Flower."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace

import numpy as np

from ..core.digest import sha256_hex
from ..core.errors import Interrupted
from ..core.layout import Vector
from ..core.messages import Sealed
from ..strategies.base import State as StrategyState
from . import rounds
from .admission import Expected
from .courier import Courier, digest_of_vector
from .post import Answer, Lost, Malformed, Post
from .recovery import standing
from .roll import Roll
from .stops import stop
from .store import Release
from .survey import Surveyor, with_statistics
from .task import Task
from .told import figures_of

logger = logging.getLogger(__name__)

__all__ = ["Drive", "Task", "released_vector"]

_LATE_ROUNDS = 2  # after its own, in which a late answer is still fetched, to be dropped
_RENEWALS = 3  # invitations of a round that a site may find overdue before that is its answer


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """An invitation that waits for its answer."""

    site: str
    node: int
    expected: Expected


@dataclass(slots=True)
class _Round:
    """What is in memory of the open round: O(d), whatever the number of sites."""

    base: Vector
    base_sha256: str
    state: StrategyState
    opened_at: float | None = None
    bytes_up: int = 0
    bytes_down: int = 0
    answered: set[str] = field(default_factory=set[str])
    overdue: dict[str, int] = field(default_factory=dict[str, int])
    asked_at: dict[str, float] = field(default_factory=dict[str, float])
    kept: dict[str, str] = field(default_factory=dict[str, str])
    site_metrics: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])


def released_vector(vector: Vector, state: StrategyState) -> Vector:
    """Return the model to release (d + e,): the strategy's own choice, else the last iterate.

    A strategy chooses what trains (d,); the constants after it are those of ``vector`` (d + e,).
    """
    if "released" not in state:
        return np.asarray(vector, dtype=np.float32)
    chosen = np.asarray(state["released"], dtype=np.float32)
    return np.concatenate([chosen, vector[len(chosen) :]])


class Drive:
    """One run of the engine over one post; ``run`` returns the released vector (d + e,)."""

    def __init__(self, post: Post, task: Task) -> None:
        """Begin where the store stands; raises ``InvalidInput`` when it cannot be mended."""
        task = replace(task, opened=with_statistics(task))
        self._task, self._clock = task, task.clock
        self._waiting: dict[str, _Asked] = {}
        self._late: dict[str, int] = {}  # round by question; in order, so that a run repeats
        found = standing(task)
        self._committed, self._lost = found.round, found.lost
        self.roll = Roll(task, post, found.heads)
        self._courier = Courier(task, post, self.roll)
        self._surveyor = Surveyor(task, self._courier, self._meet)
        self._round = _Round(
            base=found.vector, base_sha256=digest_of_vector(found.vector), state=found.state
        )

    def run(self) -> Vector:
        """Drive all remaining rounds, and before and after them what the plan fits beside.

        Raises ``Interrupted`` (resumable) or ``Refused``.
        """
        if self._surveyor.must_count:
            base = self._surveyor.statistics(self.roll.heads)
            self._round.base, self._round.base_sha256 = base, digest_of_vector(base)
        plan = self._task.plan
        rules = rounds.Rules(
            roster=tuple(site.name for site in plan.sites),
            rounds=plan.rounds.count,
            quorum=plan.rounds.quorum,
            deadline_s=plan.rounds.deadline_s,
        )
        now = self._clock.monotonic()
        state, actions = rounds.start(rules, committed=self._committed, now=now)
        for site in list(self.roll.nodes):  # whom the statistics have met
            state, more = rounds.step(state, rounds.SiteSeen(site=site, now=now))
            actions += more
        while True:
            events = self._execute(actions)
            if events is None:
                released = released_vector(self._round.base, self._round.state)
                return self._surveyor.calibrated(released, self.roll.heads)
            actions = ()
            for event in events or self._listen(state):
                state, more = rounds.step(state, event)
                actions += more

    def reports(self, vector: Vector) -> dict[str, dict[str, float]]:
        """Return what each site tells of ``vector`` on its test part, once, at the end.

        Metrics where that part is public, noised counts (``correct``, ``records``) otherwise.
        """
        self._meet_missing()
        return self._courier.reports(vector)

    # --- actions ----------------------------------------------------------------------------

    def _execute(self, actions: rounds.Actions) -> list[rounds.Event] | None:
        """Carry actions out; return the events they caused, or None when the run is complete."""
        events: list[rounds.Event] = []
        for action in actions:
            match action:
                case rounds.Invite():
                    events += self._invite(action)
                case rounds.Fold():
                    self._fold(action.site)
                case rounds.Close():
                    self._close(action)
                    events.append(rounds.Committed(now=self._clock.monotonic()))
                case rounds.Complete():
                    return None
                case rounds.Stop():
                    self._task.tell("stopped", code=action.code, reason=action.reason)
                    stop(action)
        return events

    def _invite(self, action: rounds.Invite) -> list[rounds.Event]:
        """Send invitations; return which of them the post did not take in."""
        task, opened = self._task, self._round
        if opened.opened_at is None:
            opened.opened_at = self._clock.monotonic()
        self._drop_earlier(action.round)
        events = self._leave_out(action.round)
        sites = [site for site in action.sites if site not in opened.answered]
        here = [site for site in sites if site in self.roll.nodes]  # others when they are seen
        base = opened.base.astype("<f4").tobytes()
        shared = self._courier.share(base) if here else None
        every = task.plan.evaluation.every
        look = every > 0 and action.round > 1 and (action.round - 1) % every == 0
        expected = Expected(
            job=task.store.job,
            round=action.round,
            attempt=action.attempt,
            base_sha256=opened.base_sha256,
            figures=figures_of(task.plan) if look else {},
        )
        for site in here:
            invitation = self._courier.invitation(
                site,
                round=action.round,
                attempt=action.attempt,
                base=opened.base_sha256,
                until=action.closes_at,
                look=look,
            )
            sealed, node = invitation.seal(task.key, base), self.roll.nodes[site]
            message = self._courier.push(sealed, site, "train", shared)
            if message is None:
                events.append(self._lost_event(site, action.round, "unavailable"))
                continue
            opened.bytes_down += sealed.size_bytes
            self._waiting[message] = _Asked(site=site, node=node, expected=expected)
            opened.asked_at[site] = self._clock.monotonic()
        if here:
            task.tell(
                "invited",
                round=action.round,
                attempt=action.attempt,
                sites=here,
                until=self._courier.wall(action.closes_at),
            )
        return events

    def _leave_out(self, round: int) -> list[rounds.Event]:
        """Answer for the sites that had no part in a round that is made again."""
        lost = self._lost.get(round)
        return [
            self._answered(site.name, round, "not-in-round")
            for site in self._task.plan.sites
            if lost and site.name not in lost.sites and site.name not in self._round.answered
        ]

    def _drop_earlier(self, round: int) -> None:
        """Await no answers to earlier rounds: they are fetched and dropped, so none pile up.

        A question that nobody answers is not looked for beyond two rounds after its own.
        """
        for message, asked in list(self._waiting.items()):
            if asked.expected.round != round:
                del self._waiting[message]
                self._late[message] = asked.expected.round
        for message, earlier in list(self._late.items()):
            if earlier < round - _LATE_ROUNDS:
                del self._late[message]

    def _fold(self, site: str) -> None:
        task, opened = self._task, self._round
        payload = task.store.kept_payload(self._committed + 1, site)
        if sha256_hex(payload) != opened.kept[site]:
            raise Interrupted(
                f"the stored update of {site} is damaged",
                why="its bytes on disk are not the ones that were admitted",
                cure="check the disk; --resume fetches the same update again",
            )
        vector = task.admission.decode(Sealed(header=b"", signature=b"", payload=payload))
        opened.state = task.strategy.fold(opened.state, vector, task.members[site].weight)

    def _close(self, action: rounds.Close) -> None:
        task, opened = self._task, self._round
        vector, state = task.finish(opened.state, opened.base)
        lost = self._lost.pop(action.round, None)
        if lost is not None:
            self._restore(lost, action, vector, state)
            release = lost
        else:
            release = self._release(action, vector, state)
            task.store.commit(release, vector, state)
        self._committed = action.round
        self._round = _Round(base=vector, base_sha256=release.model_sha256, state=state)
        if lost is None:
            self._tell_round(release)

    def _release(self, action: rounds.Close, vector: Vector, state: StrategyState) -> Release:
        task, opened = self._task, self._round
        began = opened.opened_at if opened.opened_at is not None else self._clock.monotonic()
        return Release(
            round=action.round,
            model_sha256=digest_of_vector(vector),
            prev_sha256=opened.base_sha256,
            sites=action.admitted,
            refused=action.refused,
            late=action.late,
            epsilon_by_site=task.epsilon(action.round) if task.epsilon else {},
            bytes_up=opened.bytes_up,
            bytes_down=opened.bytes_down,
            seconds=self._clock.monotonic() - began,
            metrics=task.evaluate(released_vector(vector, state)) if task.evaluate else {},
            site_metrics=opened.site_metrics,
            heads=dict(self.roll.heads),
        )

    def _restore(
        self, lost: Release, action: rounds.Close, vector: Vector, state: StrategyState
    ) -> None:
        """Write the checkpoint of a round that the same sites have given again."""
        if missing := sorted(set(lost.sites) - set(action.admitted)):
            raise Interrupted(
                f"the lost checkpoint of round {lost.round} cannot be made again yet",
                why=f"it needs the answer of {', '.join(missing)} as well",
                cure="--resume once they are connected, or restore the run's folder",
            )
        self._task.store.mend(lost, vector, state)
        self._task.tell("restored", round=lost.round, how="from the bytes that sites have kept")

    def _tell_round(self, release: Release) -> None:
        task = self._task
        if task.on_round:
            task.on_round(release)
        for site in release.late:
            task.tell("late", round=release.round, site=site)
        task.tell(
            "round",
            round=release.round,
            model_sha256=release.model_sha256,
            sites=list(release.sites),
            refused=dict(release.refused),
            late=list(release.late),
            seconds=release.seconds,
        )

    # --- the post ---------------------------------------------------------------------------

    def _listen(self, state: rounds.State) -> list[rounds.Event]:
        """Return what arrived since the last look; always at least that time has passed."""
        events = self._meet()
        for message, answer in self._courier.pull(
            [*self._waiting, *self._late], most=self._task.admission.payload_bytes
        ):
            self._late.pop(message, None)
            asked = self._waiting.pop(message, None)
            if asked is None or asked.site in self._round.answered:
                continue  # no question of ours, or a second answer: the first one stands
            events += self._heard(asked, answer)
        events += self._silent()
        if not events:
            self._courier.pause()
        return [*events, rounds.TimePassed(now=self._clock.monotonic())]

    def _heard(self, asked: _Asked, answer: Answer) -> list[rounds.Event]:
        """Return what an answer means; what the post lost is none, and is asked for again."""
        site, round = asked.site, asked.expected.round
        again = any(site == other.site for other in self._waiting.values())
        if isinstance(answer, Lost):
            events: list[rounds.Event] = []
            if answer.gone and self.roll.forget(site, asked.node):
                events.append(self._change(site, here=False))
            return events if again else [*events, self._lost_event(site, round, answer.reason)]
        code = self._judge(site, asked.expected, answer)
        if code == "deadline" and (again or self._is_renewed(site)):
            # it declined an invitation that has been renewed since, or the clocks disagree
            return [] if again else [self._lost_event(site, round, "overdue")]
        return [self._answered(site, round, code)]

    def _silent(self) -> list[rounds.Event]:
        """Ask again where an answer is long in coming: a question may be lost without a word.

        A site at work answers both, the second time with the bytes that it has stored.
        """
        opened, now, events = self._round, self._clock.monotonic(), list[rounds.Event]()
        for site, at in opened.asked_at.items():
            here = site in self.roll.nodes and site not in opened.answered
            if here and now - at > self._courier.silence_s:
                opened.asked_at[site] = now
                events.append(self._lost_event(site, self._committed + 1, "silent"))
        return events

    def _is_renewed(self, site: str) -> bool:
        overdue = self._round.overdue
        overdue[site] = overdue.get(site, 0) + 1
        return overdue[site] <= _RENEWALS

    def _answered(self, site: str, round: int, code: str) -> rounds.Answered:
        self._round.answered.add(site)
        if self._task.on_answer:
            self._task.on_answer(round, site, code)
        self._task.tell("answered", round=round, site=site, code=code)
        return rounds.Answered(site=site, round=round, code=code, now=self._clock.monotonic())

    def _lost_event(self, site: str, round: int, reason: str) -> rounds.Lost:
        self._task.tell("lost", round=round, site=site, reason=reason)
        return rounds.Lost(site=site, round=round, now=self._clock.monotonic())

    def _judge(self, site: str, expected: Expected, answer: Sealed | Malformed) -> str:
        """Return ``ok`` once the reply is admitted and on disk, else its reason code."""
        if isinstance(answer, Malformed):
            return answer.code
        self._round.bytes_up += answer.size_bytes
        verdict, admitted = self._task.admission.admit(site, answer, expected)
        if admitted is None:
            logger.warning("round %d: %s refused: %s", expected.round, site, verdict.code)
            return verdict.code
        self._task.store.keep_update(expected.round, site, answer)
        self._round.kept[site] = admitted.update.payload_sha256
        self.roll.heads[site] = admitted.update.ledger_head
        if admitted.update.metrics:
            self._round.site_metrics[site] = admitted.update.metrics
        return rounds.ADMITTED

    def _meet(self) -> list[rounds.Event]:
        """Return who came and who went."""
        return [self._change(change.site, here=change.here) for change in self.roll.look()]

    def _change(self, site: str, *, here: bool) -> rounds.Event:
        self._task.tell("seen" if here else "gone", site=site)
        now = self._clock.monotonic()
        return rounds.SiteSeen(site=site, now=now) if here else rounds.SiteGone(site=site, now=now)

    def _meet_missing(self) -> None:
        """Meet the sites before a last question to them, where no round has (a resumed run)."""
        until = self._clock.monotonic() + self._task.plan.rounds.deadline_s
        wanted = 0 if self.roll.nodes else len(self._task.members)
        while len(self.roll.nodes) < wanted and self._clock.monotonic() < until:
            if not self._meet():
                self._courier.pause()

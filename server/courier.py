"""What the coordinator sends: invitations, signed, with its own deadline told in wall time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator

from ..core.digest import sha256_hex
from ..core.layout import Vector
from ..core.messages import EVALUATION, ONCE, Invitation, Report, Sealed
from .post import Answer, Lost, Post, PostDown
from .roll import Roll
from .task import Task
from .told import figures_of, may_be_told

logger = logging.getLogger(__name__)

_PAUSE_S = 0.005  # least pause of a look that found nothing, even where the post itself waits
_LEAST_SILENCE_S = 45.0
_ASK_AGAIN_S = 5.0  # before a site whose report was lost is asked for it once more


def digest_of_vector(vector: Vector) -> str:
    """Return the digest by which a model (d,) is known in messages and in the store."""
    return sha256_hex(vector.astype("<f4", copy=False).tobytes())


class Courier:
    """Makes, sends and fetches messages; a post that is down is no error, only a later try."""

    def __init__(self, task: Task, post: Post, roll: Roll) -> None:
        self._task, self._post, self._roll, self._clock = task, post, roll, task.clock
        self._layout_digest = task.layout.digest
        self._figures = figures_of(task.plan)
        self._offset = task.clock.now() - task.clock.monotonic()

    @property
    def silence_s(self) -> float:
        """Return after how many seconds without a word a question is taken for lost.

        A killed SuperLink may have handed a message out that never arrived, and tells nobody. Ten
        times in a deadline at most: the question carries the whole model.
        """
        return max(_LEAST_SILENCE_S, self._task.plan.rounds.deadline_s / 10)

    def invitation(
        self, site: str, *, round: int, attempt: int, base: str, until: float, look: bool = False
    ) -> Invitation:
        """Return the question; ``until`` is by our own clock, the site is told wall time."""
        return Invitation(
            job=self._task.store.job,
            site=site,
            plan=self._roll.plan_digest,
            round=round,
            attempt=attempt,
            base_sha256=base,
            layout=self._layout_digest,
            deadline=self.wall(until),
            nonce=self._task.nonce(),
            site_ledger_head=self._roll.heads.get(site, ""),
            evaluate=look,
        )

    def wall(self, until: float) -> float:
        """Return the wall time of a moment of our own clock.

        A wall clock that is set back while the run goes on is not believed: sites would find
        every deadline overdue. One that is set forward only gives them more time.
        """
        return until + max(self._offset, self._clock.now() - self._clock.monotonic())

    def share(self, payload: bytes) -> object:
        """Return a payload made ready for many questions."""
        return self._post.share(payload)

    def push(self, sealed: Sealed, site: str, kind: str, shared: object | None) -> str | None:
        """Return the message's id, or None when the post is down or the site's node has gone."""
        node = self._roll.nodes.get(site)
        try:
            return None if node is None else self._post.send(node, kind, sealed, shared)
        except PostDown:
            logger.warning("the post is down: nothing was sent to %s", site)
            return None

    def pull(self, ids: Iterable[str], *, most: int) -> Iterator[tuple[str, Answer]]:
        """Yield the replies that are there, one at a time; ``most`` bytes of payload in each."""
        try:
            yield from self._post.fetch(list(ids), most=most)
        except PostDown:
            logger.warning("the post is down: nothing was fetched")

    def pause(self) -> None:
        """Let some time pass after a look that found nothing."""
        self._clock.sleep(max(self._task.poll_s, _PAUSE_S))

    def reports(self, vector: Vector) -> dict[str, dict[str, float]]:
        """Return what each site that has a node tells of ``vector`` (d + e,) until the deadline."""
        digest = digest_of_vector(vector)
        found: dict[str, dict[str, float]] = {}

        def hear(site: str, answer: Answer) -> None:
            report = self._roll.opened(Report, site, answer)
            if report is None or report.model_sha256 != digest:
                return
            if may_be_told(report.metrics, self._figures):
                found[site] = report.metrics
            else:
                logger.warning("site %s reports other figures than were asked for", site)

        self.collect(
            question=EVALUATION,
            payload=vector.astype("<f4").tobytes(),
            digest=digest,
            sites=list(self._roll.nodes),
            most=0,
            hear=hear,
        )
        return found

    def collect(
        self,
        *,
        question: int,
        payload: bytes,
        digest: str,
        sites: Iterable[str],
        most: int,
        hear: Callable[[str, Answer], None],
        meet: Callable[[], object] | None = None,
    ) -> None:
        """Ask sites a question beside the rounds; ``hear`` each one's first answer.

        Until all have answered or the plan's deadline has passed; what the post lost is asked
        again. ``payload`` is the model that the question is about, ``digest`` its name, ``most``
        the bytes of an answer's payload. ``meet`` is called at each look, for those who come.
        """
        clock, pending = self._clock, dict[str, str]()
        until = clock.monotonic() + self._task.plan.rounds.deadline_s
        shared = self.share(payload) if payload else None
        due = dict.fromkeys(sites, clock.monotonic())  # sites without an answer yet
        while due and clock.monotonic() < until:
            if meet is not None:
                meet()
            for site in [site for site, when in due.items() if when <= clock.monotonic()]:
                if meet is not None and site not in self._roll.nodes:
                    continue  # it is asked as soon as it has come
                asked = self.invitation(
                    site, round=ONCE, attempt=question, base=digest, until=until
                )
                message = self.push(asked.seal(self._task.key, payload), site, "evaluate", shared)
                pause = _ASK_AGAIN_S if message is None else self.silence_s
                due[site] = clock.monotonic() + pause
                if message is not None:
                    pending[message] = site
            heard = False
            for message, answer in self.pull(pending, most=most):
                site, heard = pending.pop(message, None), True
                if site not in due:
                    continue
                if isinstance(answer, Lost):
                    due[site] = min(due[site], clock.monotonic() + _ASK_AGAIN_S)
                    continue
                del due[site]
                hear(site, answer)
            if not heard:
                self.pause()

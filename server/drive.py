"""Executes the round engine's actions on any Flower Grid: in-process, SuperLink or Ray."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import Array, Message
from flwr.serverapp import Grid

from ..core.digest import sha256_hex
from ..core.errors import Interrupted, Refused
from ..core.layout import Layout, Vector
from ..core.messages import BadMessage, Header, Hello, Invitation, Report, Sealed, claimed_site
from ..core.plan import Plan
from ..strategies.base import State as StrategyState
from ..strategies.base import Strategy
from . import rounds
from ._flwr import array_of, pack, unpack
from .admission import Admission, Expected, Member
from .store import Release, Store

logger = logging.getLogger(__name__)

_PAUSE_S = 0.005  # least pause of a look that found nothing, even where the Grid itself waits
_ASK_AGAIN_S = 5.0  # before a node whose answer was no good is asked once more who it is

M = TypeVar("M", bound=Header)
Evaluate = Callable[[Vector], dict[str, float]]
OnRound = Callable[[Release], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Everything a run needs besides the Grid.

    ``opened`` (d,) is the open model's trainable vector; ``evaluate`` measures a global vector
    on a public set; ``epsilon`` gives each site's spend after a number of rounds; ``poll_s``
    is the pause between two looks at a Grid that does not wait by itself.
    """

    plan: Plan
    layout: Layout
    opened: Vector
    members: Mapping[str, Member]
    strategy: Strategy
    admission: Admission
    store: Store
    key: Ed25519PrivateKey
    evaluate: Evaluate | None = None
    epsilon: Callable[[int], dict[str, float]] | None = None
    on_round: OnRound | None = None
    on_answer: Callable[[int, str, str], None] | None = None
    poll_s: float = 0.1


@dataclass(slots=True)
class _Round:
    """What is in memory of the open round: O(d), whatever the number of sites."""

    base: Vector
    base_sha256: str
    state: StrategyState
    opened_at: float = 0.0
    bytes_up: int = 0
    bytes_down: int = 0
    answered: set[str] = field(default_factory=set[str])
    kept: dict[str, str] = field(default_factory=dict[str, str])
    site_metrics: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])


def released_vector(vector: Vector, state: StrategyState) -> Vector:
    """Return the model to release: the strategy's own choice, else the last iterate (d,)."""
    return np.asarray(state.get("released", vector), dtype=np.float32)


class Drive:
    """One run of the engine on one Grid; ``run`` returns the released vector (d,)."""

    def __init__(self, grid: Grid, task: Task) -> None:
        self._grid, self._task = grid, task
        self._plan_digest, self._layout_digest = task.plan.digest, task.layout.digest
        self._nodes: dict[str, int] = {}
        self._heads: dict[str, str] = {}
        self._asked: dict[int, str] = {}
        self._ask_again: dict[int, float] = {}
        self._hellos: dict[str, int] = {}
        self._waiting: dict[str, tuple[str, Expected]] = {}
        self._late: set[str] = set()
        latest = task.store.latest()
        vector, state = latest[1:] if latest else (task.opened, task.strategy.init(task.layout))
        self._committed = latest[0] if latest else 0
        self._round = _Round(base=vector, base_sha256=_digest(vector), state=state)

    def run(self) -> Vector:
        """Drive all remaining rounds; raises ``Interrupted`` (resumable) or ``Refused``."""
        plan = self._task.plan
        rules = rounds.Rules(
            roster=tuple(site.name for site in plan.sites),
            rounds=plan.rounds.count,
            quorum=plan.rounds.quorum,
            deadline_s=plan.rounds.deadline_s,
        )
        state, actions = rounds.start(rules, committed=self._committed, now=time.time())
        while True:
            events = self._execute(actions)
            if events is None:
                return released_vector(self._round.base, self._round.state)
            actions = ()
            for event in events or self._listen(state):
                state, more = rounds.step(state, event)
                actions += more

    def reports(self, vector: Vector) -> dict[str, dict[str, float]]:
        """Return what each site tells of ``vector`` on its test part, once, at the end.

        Metrics where that part is public, noised counts (``correct``, ``records``) otherwise.
        """
        task, base = self._task, vector.astype("<f4").tobytes()
        self._meet_missing()
        until = time.time() + task.plan.rounds.deadline_s
        pending: dict[str, str] = {}
        array = array_of(base)
        for site, node in self._nodes.items():
            request = self._invitation(site, round=0, attempt=1, base=_digest(vector), until=until)
            sealed = request.seal(task.key, base)
            pending[self._push(sealed, node, "evaluate", array)] = site
        found: dict[str, dict[str, float]] = {}
        while pending and time.time() < until:
            replies = self._pull(pending)
            if not replies:
                self._pause()
            for message in replies:
                site = pending.pop(message.metadata.reply_to_message_id, None)
                if site is None:
                    continue
                report = self._opened(Report, site, message)
                if report is not None and report.model_sha256 == _digest(vector):
                    found[site] = report.metrics
        return found

    # --- actions ----------------------------------------------------------------------------

    def _execute(self, actions: rounds.Actions) -> list[rounds.Event] | None:
        """Carry actions out; return the events they caused, or None when the run is complete."""
        events: list[rounds.Event] = []
        for action in actions:
            match action:
                case rounds.Invite():
                    self._invite(action)
                case rounds.Fold():
                    self._fold(action.site)
                case rounds.Close():
                    self._close(action)
                    events.append(rounds.Committed(now=time.time()))
                case rounds.Complete():
                    return None
                case rounds.Stop():
                    _stop(action)
        return events

    def _invite(self, action: rounds.Invite) -> None:
        task, opened = self._task, self._round
        if opened.opened_at == 0.0:
            opened.opened_at = time.monotonic()
        for message, (_, expected) in list(self._waiting.items()):
            if expected.round != action.round:
                del self._waiting[message]
                self._late.add(message)  # fetched and dropped, so that no Grid keeps it for ever
        base = opened.base.astype("<f4").tobytes()
        array = array_of(base)
        every = task.plan.evaluation.every
        look = every > 0 and action.round > 1 and (action.round - 1) % every == 0
        for site in action.sites:
            if site not in self._nodes:
                continue  # invited when it is seen
            invitation = self._invitation(
                site,
                round=action.round,
                attempt=action.attempt,
                base=opened.base_sha256,
                until=action.closes_at,
                look=look,
            )
            sealed = invitation.seal(task.key, base)
            opened.bytes_down += sealed.size_bytes
            expected = Expected(
                job=task.store.job,
                round=action.round,
                attempt=action.attempt,
                base_sha256=opened.base_sha256,
            )
            message_id = self._push(sealed, self._nodes[site], "train", array)
            self._waiting[message_id] = (site, expected)

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
        vector, state = task.strategy.finish(opened.state, opened.base)
        release = Release(
            round=action.round,
            model_sha256=_digest(vector),
            prev_sha256=opened.base_sha256,
            sites=action.admitted,
            refused=action.refused,
            late=action.late,
            epsilon_by_site=task.epsilon(action.round) if task.epsilon else {},
            bytes_up=opened.bytes_up,
            bytes_down=opened.bytes_down,
            seconds=time.monotonic() - opened.opened_at,
            metrics=task.evaluate(released_vector(vector, state)) if task.evaluate else {},
            site_metrics=opened.site_metrics,
        )
        task.store.commit(release, vector, state)
        self._committed = action.round
        self._round = _Round(base=vector, base_sha256=release.model_sha256, state=state)
        if task.on_round:
            task.on_round(release)

    # --- the Grid ---------------------------------------------------------------------------

    def _listen(self, state: rounds.State) -> list[rounds.Event]:
        """Return what arrived since the last look; always at least that time has passed."""
        events: list[rounds.Event] = []
        if len(state.present) < len(state.rules.roster):
            events += [rounds.SiteSeen(site=site, now=time.time()) for site in self._meet()]
        for message in self._pull([*self._waiting, *self._late]):
            self._late.discard(message.metadata.reply_to_message_id)
            found = self._waiting.pop(message.metadata.reply_to_message_id, None)
            if found is None or found[0] in self._round.answered:
                continue  # no question of ours, or a second answer: the first one stands
            site, expected = found
            code = self._judge(site, expected, message)
            if code == "deadline" and any(site == other for other, _ in self._waiting.values()):
                continue  # it declined an invitation that has been renewed since
            self._round.answered.add(site)
            if self._task.on_answer:
                self._task.on_answer(expected.round, site, code)
            events.append(
                rounds.Answered(site=site, round=expected.round, code=code, now=time.time())
            )
        if not events:
            self._pause()
        return [*events, rounds.TimePassed(now=time.time())]

    def _judge(self, site: str, expected: Expected, message: Message) -> str:
        """Return ``ok`` once the reply is admitted and on disk, else its reason code."""
        if message.has_error():
            return "error"
        try:
            reply = unpack(message)
        except BadMessage as error:
            return error.code
        self._round.bytes_up += reply.size_bytes
        verdict, admitted = self._task.admission.admit(site, reply, expected)
        if admitted is None:
            logger.warning("round %d: %s refused: %s", expected.round, site, verdict.code)
            return verdict.code
        self._task.store.keep_update(expected.round, site, reply)
        self._round.kept[site] = admitted.update.payload_sha256
        self._heads[site] = admitted.update.ledger_head
        if admitted.update.metrics:
            self._round.site_metrics[site] = admitted.update.metrics
        return rounds.ADMITTED

    def _meet_missing(self) -> None:
        """Meet the sites before a last question to them, where no round has (a resumed run)."""
        until = time.time() + self._task.plan.rounds.deadline_s
        wanted = 0 if self._nodes else len(self._task.members)
        while len(self._nodes) < wanted and time.time() < until:
            if not self._meet():
                self._pause()

    def _meet(self) -> list[str]:
        """Ask unknown nodes who they are; return the roster's sites that have just answered."""
        task = self._task
        for node in self._grid.get_node_ids():
            if node in self._asked and time.monotonic() < self._ask_again.get(node, math.inf):
                continue
            self._ask_again.pop(node, None)
            nonce = secrets.token_hex(16)
            question = Hello(
                job=task.store.job, site="", plan=self._plan_digest, nonce=nonce, ledger_head=""
            )
            self._asked[node] = nonce
            self._hellos[self._push(question.seal(task.key), node, "query.hello")] = node
        met: list[str] = []
        for message in self._pull(self._hellos):
            node = self._hellos.pop(message.metadata.reply_to_message_id, None)
            if node is None:
                continue
            if (site := self._who(node, message)) is not None:
                met.append(site)
            else:
                self._ask_again[node] = time.monotonic() + _ASK_AGAIN_S
        return met

    def _who(self, node: int, message: Message) -> str | None:
        """Return the roster's site that signed this answer to our own question, once."""
        try:
            reply = unpack(message) if message.has_content() else Sealed(header=b"", signature=b"")
        except BadMessage:
            return None
        site = claimed_site(reply)
        if site not in self._task.members or site in self._nodes:
            return None
        hello = self._opened(Hello, site, message)
        if hello is None or hello.nonce != self._asked[node]:
            return None
        if hello.plan != self._plan_digest:
            logger.warning("site %s has another plan", site)
            return None
        self._nodes[site], self._heads[site] = node, hello.ledger_head
        return site

    def _opened(self, kind: type[M], site: str, message: Message) -> M | None:
        if message.has_error():
            return None
        try:
            return kind.open(unpack(message), self._task.members[site].public_key)
        except BadMessage:
            return None

    def _invitation(
        self, site: str, *, round: int, attempt: int, base: str, until: float, look: bool = False
    ) -> Invitation:
        return Invitation(
            job=self._task.store.job,
            site=site,
            plan=self._plan_digest,
            round=round,
            attempt=attempt,
            base_sha256=base,
            layout=self._layout_digest,
            deadline=until,
            nonce=secrets.token_hex(16),
            site_ledger_head=self._heads.get(site, ""),
            evaluate=look,
        )

    def _push(self, sealed: Sealed, node: int, kind: str, array: Array | None = None) -> str:
        message = Message(pack(sealed, array), dst_node_id=node, message_type=kind)
        return next(iter(self._grid.push_messages([message])))

    def _pull(self, ids: Iterable[str]) -> list[Message]:
        """Return the replies that are there."""
        wanted = list(ids)
        return list(self._grid.pull_messages(wanted)) if wanted else []

    def _pause(self) -> None:
        time.sleep(max(self._task.poll_s, _PAUSE_S))


def _digest(vector: Vector) -> str:
    return sha256_hex(vector.astype("<f4", copy=False).tobytes())


def _stop(action: rounds.Stop) -> None:
    if action.code == "no-updates":
        raise Refused(
            f"the run stopped: {action.reason}",
            why="no site's update was admitted, so there is nothing to aggregate",
            cure="look at the reason codes; --resume goes on once the sites take part",
        )
    raise Interrupted(
        f"the run stopped: {action.reason}",
        why="fewer sites answered than the plan's quorum asks for",
        cure="--resume continues from the last durable round",
    )

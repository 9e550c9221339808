"""The round engine: a pure state machine, ``step(state, event) -> (state, actions)``.

No clock, disk, network or model in here: time comes in with events, and what is to be done
goes out as actions, which ``drive.py`` executes. The same events give the same actions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

Phase = Literal["gathering", "open", "closing", "finished", "stopped"]
StopCode = Literal["roster", "quorum", "no-updates", "older"]
ADMITTED = "ok"
ANOTHER_BASE = "base"
"""The decline of a site that has answered this very attempt, or been pinned, to another model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What the plan says about rounds; ``roster`` is also the order of folding.

    ``deadline_s`` seconds from invitation to close; a round without quorum re-invites the
    silent sites under the same attempt, ``invitations`` times in all. A site whose answer was
    lost on the way is invited again after ``retry_s``, then twice as long, up to ``retry_most_s``.
    """

    roster: tuple[str, ...]
    rounds: int
    quorum: float
    deadline_s: float
    invitations: int = 3
    retry_s: float = 1.0
    retry_most_s: float = 30.0

    @property
    def answers_needed(self) -> int:
        """Return how many sites must answer before a round may close at its deadline."""
        return max(1, math.ceil(self.quorum * len(self.roster) - 1e-9))


# --- events ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSeen:
    """A site of the roster is connected."""

    site: str
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteGone:
    """A site's node is not connected any more; it may come back under another id."""

    site: str
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """No answer of this site will come to what it was asked: the post lost one of both."""

    site: str
    round: int
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A site's reply was admitted (code ``ok``), refused or declined (any other code)."""

    site: str
    round: int
    code: str
    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """Nothing happened, but it is later now."""

    now: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The closed round is durable."""

    now: float


Event = SiteSeen | SiteGone | Lost | Answered | TimePassed | Committed


# --- actions --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Invite:
    """Send these sites the base model of this round."""

    round: int
    attempt: int
    sites: tuple[str, ...]
    closes_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Take this site's stored update into the strategy's state."""

    site: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Finish the round and make it durable; then report ``Committed``."""

    round: int
    admitted: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]
    late: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Complete:
    """All rounds are durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The run cannot go on; ``code`` says why and nothing is lost."""

    code: StopCode
    reason: str


Action = Invite | Fold | Close | Complete | Stop
Actions = tuple[Action, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a run stands; ``round`` is the open one, ``round - 1`` the last durable one."""

    rules: Rules
    phase: Phase = "gathering"
    round: int = 1
    attempt: int = 1
    invited: int = 0
    closes_at: float = 0.0
    present: frozenset[str] = frozenset()
    answers: dict[str, str] = field(default_factory=dict[str, str])
    folded: int = 0  # roster positions that need no further thought
    again: dict[str, float] = field(default_factory=dict[str, float])  # when to invite whom
    losses: dict[str, int] = field(default_factory=dict[str, int])  # in this round


def start(rules: Rules, *, committed: int, now: float) -> tuple[State, Actions]:
    """Return the state after ``committed`` durable rounds, waiting for the roster."""
    if committed >= rules.rounds:
        return State(rules=rules, phase="finished", round=committed + 1), (Complete(),)
    return State(rules=rules, round=committed + 1, closes_at=now + rules.deadline_s), ()


def step(state: State, event: Event) -> tuple[State, Actions]:
    """Return the next state and what is to be done; finished and stopped runs stay as they are."""
    match event:
        case SiteSeen():
            return _seen(state, event)
        case SiteGone():
            return _gone(state, event)
        case Lost():
            return _lost(state, event)
        case Answered():
            return _answered(state, event)
        case TimePassed():
            return _time_passed(state, event.now)
        case Committed():
            return _committed(state, event.now)


def _seen(state: State, event: SiteSeen) -> tuple[State, Actions]:
    rules = state.rules
    if event.site not in rules.roster or event.site in state.present:
        return state, ()
    state = replace(state, present=state.present | {event.site})
    if state.phase == "gathering" and len(state.present) == len(rules.roster):
        return _open(state, event.now)
    in_time = event.now < state.closes_at  # if not, TimePassed closes or asks it with the others
    due = state.again.get(event.site, -math.inf) <= event.now  # the pause after a loss goes on
    if state.phase == "open" and in_time and due and event.site not in state.answers:
        state = replace(state, again=_without(state.again, event.site))
        return state, (_invitation(state, (event.site,)),)
    return state, ()


def _gone(state: State, event: SiteGone) -> tuple[State, Actions]:
    """Forget that a site is here: it is invited when it is seen again."""
    return replace(state, present=state.present - {event.site}), ()


def _lost(state: State, event: Lost) -> tuple[State, Actions]:
    """Plan another invitation, each after twice the pause of the one before."""
    rules, site = state.rules, event.site
    known = site in rules.roster and site not in state.answers
    if state.phase != "open" or event.round != state.round or not known:
        return state, ()
    before = state.losses.get(site, 0)
    pause = min(rules.retry_s * 2.0 ** min(before, 30), rules.retry_most_s)
    return replace(
        state,
        again={**state.again, site: event.now + pause},
        losses={**state.losses, site: before + 1},
    ), ()


def _answered(state: State, event: Answered) -> tuple[State, Actions]:
    known = event.site in state.rules.roster and event.site not in state.answers
    if state.phase != "open" or event.round != state.round or not known:
        return state, ()
    state = replace(
        state,
        answers={**state.answers, event.site: event.code},
        again=_without(state.again, event.site),
    )
    state, folds = _fold_ready(state)
    if len(state.answers) == len(state.rules.roster):
        return _close(state, folds)
    return state, folds


def _time_passed(state: State, now: float) -> tuple[State, Actions]:
    if now < state.closes_at:
        return _invite_again(state, now)
    rules = state.rules
    if state.phase == "gathering":
        if len(state.present) >= rules.answers_needed:
            return _open(state, now)
        missing = ", ".join(sorted(set(rules.roster) - state.present))
        return _stop(state, "roster", f"these sites never came: {missing}")
    if state.phase != "open":
        return state, ()
    if len(state.answers) >= rules.answers_needed:
        return _close(state, ())
    silent = tuple(site for site in rules.roster if site not in state.answers)
    if state.invited >= rules.invitations:
        return _stop(
            state,
            "quorum",
            f"round {state.round}: {len(state.answers)} of {rules.answers_needed} needed sites"
            f" answered; silent: {', '.join(silent)}",
        )
    state = replace(state, invited=state.invited + 1, closes_at=now + rules.deadline_s, again={})
    return state, (_invitation(state, silent),)


def _invite_again(state: State, now: float) -> tuple[State, Actions]:
    due = tuple(
        site
        for site in state.rules.roster
        if site in state.present and state.again.get(site, math.inf) <= now
    )
    if state.phase != "open" or not due:
        return state, ()
    return replace(state, again=_without(state.again, *due)), (_invitation(state, due),)


def _committed(state: State, now: float) -> tuple[State, Actions]:
    if state.phase != "closing":
        return state, ()
    state = replace(state, round=state.round + 1)
    if state.round > state.rules.rounds:
        return replace(state, phase="finished"), (Complete(),)
    return _open(state, now)


def _open(state: State, now: float) -> tuple[State, Actions]:
    state = replace(
        state,
        phase="open",
        attempt=1,
        invited=1,
        answers={},
        folded=0,
        again={},
        losses={},
        closes_at=now + state.rules.deadline_s,
    )
    here = tuple(site for site in state.rules.roster if site in state.present)
    return state, (_invitation(state, here),)


def _invitation(state: State, sites: tuple[str, ...]) -> Invite:
    return Invite(round=state.round, attempt=state.attempt, sites=sites, closes_at=state.closes_at)


def _fold_ready(state: State) -> tuple[State, Actions]:
    """Fold in roster order: a site waits on disk until all before it have answered."""
    folds: list[Action] = []
    position = state.folded
    for site in state.rules.roster[state.folded :]:
        if site not in state.answers:
            break
        if state.answers[site] == ADMITTED:
            folds.append(Fold(site=site))
        position += 1
    return replace(state, folded=position), tuple(folds)


def _close(state: State, folds: Actions) -> tuple[State, Actions]:
    roster, answers = state.rules.roster, state.answers
    admitted = tuple(site for site in roster if answers.get(site) == ADMITTED)
    refused = tuple(
        (site, answers[site]) for site in roster if answers.get(site, ADMITTED) != ADMITTED
    )
    strangers = [site for site, code in refused if code == ANOTHER_BASE]
    if state.round > 1 and len(strangers) > len(admitted):
        return _stop(
            state,
            "older",
            f"round {state.round}: {', '.join(strangers)} answered it for another base model",
        )
    if not admitted:
        codes = ", ".join(f"{site}: {code}" for site, code in refused)
        return _stop(state, "no-updates", f"round {state.round} admitted no update ({codes})")
    waiting = tuple(
        Fold(site=site) for site in roster[state.folded :] if answers.get(site) == ADMITTED
    )
    late = tuple(site for site in roster if site not in answers)
    close = Close(round=state.round, admitted=admitted, refused=refused, late=late)
    return replace(state, phase="closing", folded=len(roster)), (*folds, *waiting, close)


def _without(again: dict[str, float], *sites: str) -> dict[str, float]:
    return {site: when for site, when in again.items() if site not in sites}


def _stop(state: State, code: StopCode, reason: str) -> tuple[State, Actions]:
    return replace(state, phase="stopped"), (Stop(code=code, reason=reason),)

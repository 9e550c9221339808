"""The round engine: a worked example by hand, then whatever order events may come in."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.server import rounds as r

ROSTER = ("a", "b", "c")


def rules(**changes: object) -> r.Rules:
    """Three sites, two rounds, ten seconds."""
    values: dict[str, object] = {"roster": ROSTER, "rounds": 2, "quorum": 1.0, "deadline_s": 10.0}
    return r.Rules(**values | changes)  # type: ignore[arg-type]


def seen(site: str, now: float = 1.0) -> r.SiteSeen:
    return r.SiteSeen(site=site, now=now)


def answer(site: str, code: str = "ok", *, round: int = 1, now: float = 2.0) -> r.Answered:
    return r.Answered(site=site, round=round, code=code, now=now)


def later(now: float) -> r.TimePassed:
    return r.TimePassed(now=now)


def play(state: r.State, *events: r.Event) -> tuple[r.State, list[r.Action]]:
    """All actions of some events, in order."""
    found: list[r.Action] = []
    for event in events:
        state, actions = r.step(state, event)
        found += actions
    return state, found


def opened(**changes: object) -> r.State:
    """A run whose first round is open until 11."""
    state, _ = r.start(rules(**changes), committed=0, now=0.0)
    return play(state, *(seen(site) for site in ROSTER))[0]


def test_worked_example() -> None:
    """Two rounds: c answers first and waits; b is refused; then all three."""
    state, actions = r.start(rules(), committed=0, now=0.0)
    assert actions == ()
    state, actions = play(state, seen("b"), seen("a"), later(5.0))
    assert actions == []
    state, actions = play(state, seen("c", 6.0))
    assert actions == [r.Invite(round=1, attempt=1, sites=ROSTER, closes_at=16.0)]
    state, actions = play(state, answer("c"))
    assert actions == []  # nobody before it has answered: it waits on disk
    state, actions = play(state, answer("a"))
    assert actions == [r.Fold(site="a")]
    state, actions = play(state, answer("b", "norm"))
    assert actions == [
        r.Fold(site="c"),
        r.Close(round=1, admitted=("a", "c"), refused=(("b", "norm"),), late=()),
    ]
    assert state.phase == "closing"
    state, actions = play(state, r.Committed(now=7.0))
    assert actions == [r.Invite(round=2, attempt=1, sites=ROSTER, closes_at=17.0)]
    state, actions = play(state, *(answer(site, round=2) for site in ROSTER))
    close = r.Close(round=2, admitted=ROSTER, refused=(), late=())
    assert actions == [*(r.Fold(site=site) for site in ROSTER), close]
    state, actions = play(state, r.Committed(now=9.0), later(1e9))
    assert actions == [r.Complete()]
    assert state.phase == "finished"


def test_resumed_runs_begin_after_the_last_durable_round() -> None:
    state, actions = r.start(rules(rounds=5), committed=3, now=0.0)
    state, actions = play(state, *(seen(site) for site in ROSTER))
    assert actions == [r.Invite(round=4, attempt=1, sites=ROSTER, closes_at=11.0)]


@pytest.mark.parametrize("committed", [2, 3])
def test_finished_runs_are_complete_at_once(committed: int) -> None:
    state, actions = r.start(rules(), committed=committed, now=0.0)
    assert actions == (r.Complete(),)
    assert play(state, seen("a"), later(1e9), r.Committed(now=1e9))[1] == []


@pytest.mark.parametrize(
    ("quorum", "size", "needed"),
    [(1.0, 3, 3), (0.5, 3, 2), (2 / 3, 3, 2), (0.01, 3, 1), (0.1, 10, 1), (0.7, 10, 7)],
)
def test_answers_needed(quorum: float, size: int, needed: int) -> None:
    roster = tuple(str(number) for number in range(size))
    assert rules(roster=roster, quorum=quorum).answers_needed == needed


def test_roster_incomplete_but_quorate_opens_at_the_deadline() -> None:
    state, _ = r.start(rules(quorum=0.6), committed=0, now=0.0)
    state, actions = play(state, seen("c"), seen("a"), later(9.9))
    assert actions == []
    state, actions = play(state, later(10.0))
    assert actions == [r.Invite(round=1, attempt=1, sites=("a", "c"), closes_at=20.0)]
    state, actions = play(state, seen("b", 12.0))  # the late one is invited when it comes
    assert actions == [r.Invite(round=1, attempt=1, sites=("b",), closes_at=20.0)]


def test_who_comes_after_the_deadline_is_not_sent_a_dead_invitation() -> None:
    state, _ = r.start(rules(quorum=0.6), committed=0, now=0.0)
    state, _ = play(state, seen("c"), seen("a"), later(10.0))
    state, actions = play(state, seen("b", 20.5))
    assert actions == []
    state, actions = play(state, later(20.5))
    assert actions == [r.Invite(round=1, attempt=1, sites=ROSTER, closes_at=30.5)]


def test_roster_without_quorum_stops_and_names_who_is_missing() -> None:
    state, _ = r.start(rules(), committed=0, now=0.0)
    state, actions = play(state, seen("a"), later(10.0))
    (stop,) = actions
    assert isinstance(stop, r.Stop)
    assert stop.code == "roster"
    assert "b, c" in stop.reason


def test_deadline_with_quorum_closes_and_names_the_late() -> None:
    state, actions = play(opened(quorum=0.6), answer("c"), answer("b"), later(10.9))
    assert actions == []
    state, actions = play(state, later(11.0))
    assert actions == [
        r.Fold(site="b"),
        r.Fold(site="c"),
        r.Close(round=1, admitted=("b", "c"), refused=(), late=("a",)),
    ]
    assert play(state, answer("a"))[1] == []  # too late for this round
    state, _ = play(state, r.Committed(now=12.0))
    assert play(state, answer("a", round=1))[1] == []  # and not of the next one


def test_deadline_without_quorum_asks_the_silent_again_under_the_same_attempt() -> None:
    state, actions = play(opened(), answer("b"), later(11.0))
    assert actions == [r.Invite(round=1, attempt=1, sites=("a", "c"), closes_at=21.0)]
    state, actions = play(state, answer("a", now=12.0), later(21.0))
    assert actions[-1] == r.Invite(round=1, attempt=1, sites=("c",), closes_at=31.0)
    state, actions = play(state, later(30.9))
    assert actions == []
    state, actions = play(state, later(31.0))
    (stop,) = actions
    assert isinstance(stop, r.Stop)
    assert stop.code == "quorum"
    assert "silent: c" in stop.reason
    assert play(state, answer("c"), later(1e9), r.Committed(now=1e9))[1] == []


def test_a_refusal_is_an_answer_and_counts_for_the_quorum() -> None:
    _, actions = play(opened(), answer("a", "norm"), answer("b"), answer("c", "budget"))
    assert actions[-1] == r.Close(
        round=1, admitted=("b",), refused=(("a", "norm"), ("c", "budget")), late=()
    )


def test_no_update_at_all_stops() -> None:
    state, actions = play(opened(), *(answer(site, "budget") for site in ROSTER))
    (stop,) = actions
    assert isinstance(stop, r.Stop)
    assert stop.code == "no-updates"
    assert state.phase == "stopped"


def test_strangers_and_repeats_change_nothing() -> None:
    state = opened()
    for event in (seen("z"), seen("a"), answer("z"), answer("a", round=2), answer("a", round=0)):
        assert r.step(state, event) == (state, ())
    state, _ = play(state, answer("a"))
    assert r.step(state, answer("a", "norm")) == (state, ())  # the first answer stands
    assert r.step(state, r.Committed(now=3.0)) == (state, ())  # nothing was closed


def test_one_site() -> None:
    state, _ = r.start(rules(roster=("a",), rounds=1), committed=0, now=0.0)
    _, actions = play(state, seen("a"), answer("a"), r.Committed(now=3.0))
    assert [type(action) for action in actions] == [r.Invite, r.Fold, r.Close, r.Complete]


# --- any interleaving -----------------------------------------------------------------------


@dataclass
class Checker:
    """Plays events, executes Close at once or later, and holds the invariants I3 and I4."""

    state: r.State
    now: float = 0.0
    folded: list[str] = field(default_factory=list)
    codes: dict[str, str] = field(default_factory=dict)
    last_round: int = 0
    closes: list[r.Close] = field(default_factory=list)
    ended: r.Action | None = None

    def feed(self, event: r.Event) -> None:
        before = self.state
        self.state, actions = r.step(before, event)
        assert self.state.round >= before.round
        assert not (self.ended and actions), "a finished run stays as it is"
        if isinstance(event, r.Answered) and before.phase == "open":
            fits = event.round == before.round and event.site in before.rules.roster
            if fits:
                self.codes.setdefault(event.site, event.code)
        for action in actions:
            self.check(action)

    def check(self, action: r.Action) -> None:
        roster = self.state.rules.roster
        match action:
            case r.Invite():
                assert action.attempt == 1
                assert action.sites or self.state.present == frozenset()
                assert action.closes_at > self.now
                if action.round != self.last_round:
                    assert action.round == self.last_round + 1
                    self.last_round, self.folded, self.codes = action.round, [], {}
                assert not set(action.sites) & set(self.codes), "who has answered is left alone"
            case r.Fold():
                assert self.codes[action.site] == "ok"
                assert action.site not in self.folded, "I3: no site is counted twice"
                self.folded.append(action.site)
                order = [roster.index(site) for site in self.folded]
                assert order == sorted(order), "folds come in roster order"
            case r.Close():
                assert action.round == self.last_round
                assert action.admitted == tuple(self.folded)
                assert dict(action.refused) == {
                    site: code for site, code in self.codes.items() if code != "ok"
                }
                everyone = {*action.admitted, *dict(action.refused), *action.late}
                assert everyone == set(roster)
                assert len(action.admitted) + len(action.refused) + len(action.late) == len(roster)
                assert len(self.codes) >= self.state.rules.answers_needed
                self.closes.append(action)
            case r.Complete() | r.Stop():
                self.ended = action


def run_events(
    roster: tuple[str, ...], quorum: float, committed: int, moves: list[tuple[str, int, str, float]]
) -> Checker:
    """Turn drawn moves into events with a clock that only goes forward."""
    checker = Checker(
        state=r.start(rules(roster=roster, quorum=quorum, rounds=3), committed=committed, now=0.0)[
            0
        ],
        last_round=committed,
    )
    for kind, number, code, pause in moves:
        checker.now += pause
        site = (*roster, "stranger")[number % (len(roster) + 1)]
        round = checker.state.round + (number // 7) % 3 - 1 if number > 20 else checker.state.round
        events: dict[str, Callable[[], r.Event]] = {
            "seen": lambda site=site: r.SiteSeen(site=site, now=checker.now),
            "answer": lambda site=site, round=round, code=code: r.Answered(
                site=site, round=round, code=code, now=checker.now
            ),
            "time": lambda: r.TimePassed(now=checker.now),
            "committed": lambda: r.Committed(now=checker.now),
        }
        checker.feed(events[kind]())
    return checker


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["seen", "answer", "answer", "answer", "time", "committed"]),
        st.integers(0, 40),
        st.sampled_from(["ok", "ok", "norm", "error"]),
        st.sampled_from([0.0, 0.0, 0.1, 3.0, 11.0]),
    ),
    max_size=60,
)


@given(
    size=st.integers(1, 6),
    quorum=st.sampled_from([0.1, 0.5, 0.67, 1.0]),
    committed=st.integers(0, 3),
    moves=MOVES,
)
@settings(deadline=None, max_examples=400)
def test_any_interleaving(
    size: int, quorum: float, committed: int, moves: list[tuple[str, int, str, float]]
) -> None:
    roster = tuple("abcdef"[:size])
    checker = run_events(roster, quorum, committed, moves)
    numbers = [close.round for close in checker.closes]
    assert numbers == sorted(set(numbers))


@given(size=st.integers(1, 5), quorum=st.sampled_from([0.2, 0.5, 1.0]), moves=MOVES)
@settings(deadline=None, max_examples=200)
def test_time_ends_every_run(
    size: int, quorum: float, moves: list[tuple[str, int, str, float]]
) -> None:
    """I5: whatever happened before, with a clock and a disk a run completes or says why not."""
    checker = run_events(tuple("abcde"[:size]), quorum, 0, moves)
    for _ in range(40):
        if checker.ended or checker.state.phase == "finished":
            break
        checker.now += 10.0
        checker.feed(r.Committed(now=checker.now))
        checker.feed(r.TimePassed(now=checker.now))
    assert checker.ended is not None or checker.state.phase == "finished"


@given(moves=MOVES)
@settings(deadline=None, max_examples=100)
def test_the_same_events_give_the_same_actions(moves: list[tuple[str, int, str, float]]) -> None:
    first, second = (run_events(("a", "b", "c"), 0.5, 0, moves) for _ in range(2))
    assert first.state == second.state
    assert first.closes == second.closes


@given(order=st.permutations(list("abcdefgh")), bad=st.sets(st.sampled_from("abcdefgh")))
def test_order_of_arrival_never_shows(order: list[str], bad: set[str]) -> None:
    """Whoever comes first: the same folds in the same order and the same close."""
    roster = tuple("abcdefgh")
    state, _ = r.start(rules(roster=roster, rounds=1), committed=0, now=0.0)
    state, _ = play(state, *(seen(site) for site in roster))
    _, actions = play(state, *(answer(site, "norm" if site in bad else "ok") for site in order))
    good = tuple(site for site in roster if site not in bad)
    if good:
        assert [action.site for action in actions if isinstance(action, r.Fold)] == list(good)
        assert isinstance(actions[-1], r.Close) and actions[-1].admitted == good
    else:
        assert [type(action) for action in actions] == [r.Stop]


def test_thousands_of_sites_cost_no_more_than_their_number() -> None:
    """Steps are counted, not timed: every answer looks at the roster's unfolded part once."""
    roster = tuple(f"s{number}" for number in range(2000))
    state, _ = r.start(rules(roster=roster, rounds=1), committed=0, now=0.0)
    state, _ = play(state, *(seen(site) for site in roster))
    _, actions = play(state, *(answer(site) for site in roster))
    assert sum(isinstance(action, r.Fold) for action in actions) == 2000


def lost(site: str, *, round: int = 1, now: float = 2.0) -> r.Lost:
    return r.Lost(site=site, round=round, now=now)


def test_a_lost_answer_is_asked_for_again_after_a_growing_pause() -> None:
    state, actions = play(opened(deadline_s=100.0), lost("b", now=2.0), later(2.9))
    assert actions == []
    again = r.Invite(round=1, attempt=1, sites=("b",), closes_at=101.0)
    state, actions = play(state, later(3.0))
    assert actions == [again]
    state, actions = play(state, later(3.1))
    assert actions == []  # once for each loss
    state, actions = play(state, lost("b", now=4.0), later(5.9))
    assert actions == []
    state, actions = play(state, later(6.0))
    assert actions == [again]
    for _ in range(2000):
        state, _ = play(state, lost("b", now=10.0))
    assert play(state, later(39.9))[1] == []
    assert play(state, later(40.0))[1] == [again]  # never more than half a minute


def test_what_is_lost_does_not_matter_once_a_site_has_answered() -> None:
    state, _ = play(opened(), lost("b"), answer("b"))
    assert play(state, later(9.0))[1] == []
    state, _ = play(state, lost("b"), lost("x"), lost("a", round=2))
    assert play(state, later(9.0))[1] == []


def test_the_deadline_holds_whatever_is_lost() -> None:
    state, _ = play(opened(quorum=0.6), answer("a"), answer("b"), lost("c", now=10.9))
    state, actions = play(state, later(11.0))
    assert actions[-1] == r.Close(round=1, admitted=("a", "b"), refused=(), late=("c",))
    state, actions = play(state, r.Committed(now=11.5), later(12.0))
    assert actions == [r.Invite(round=2, attempt=1, sites=ROSTER, closes_at=21.5)]


def test_a_site_that_comes_back_is_invited_again() -> None:
    gone = r.SiteGone(site="b", now=3.0)
    state, actions = play(opened(), lost("b", now=2.5), gone, later(9.0))
    assert actions == []  # nobody to ask
    state, actions = play(state, seen("b", 9.5))
    assert actions == [r.Invite(round=1, attempt=1, sites=("b",), closes_at=11.0)]
    state, _ = play(state, answer("b"), r.SiteGone(site="b", now=9.8))
    assert play(state, seen("b", 9.9))[1] == []  # its answer is there


def test_going_and_coming_does_not_shorten_the_pause_after_a_loss() -> None:
    """A site may say of itself that its node is gone: it would be sent the model without end."""
    state, now, invited = opened(deadline_s=60.0), 2.0, 0
    while now < 60.0:
        state, actions = play(
            state, r.SiteGone(site="b", now=now), lost("b", now=now), seen("b", now + 0.2)
        )
        invited += len(actions)
        for _ in range(100):  # it answers every invitation at once, in the same way
            now += 0.5
            state, actions = play(state, later(now))
            if actions:
                break
        invited += len(actions)
    assert 4 <= invited <= 8


def test_who_comes_after_the_pause_is_invited_at_once() -> None:
    state, _ = play(opened(deadline_s=60.0), lost("b"), r.SiteGone(site="b", now=2.0), later(4.0))
    state, actions = play(state, seen("b", 5.0))
    assert [action.sites for action in actions if isinstance(action, r.Invite)] == [("b",)]
    assert play(state, later(6.0))[1] == []


def test_a_site_that_goes_while_all_gather_is_waited_for() -> None:
    state, _ = r.start(rules(), committed=0, now=0.0)
    state, actions = play(state, seen("a"), seen("b"), r.SiteGone(site="a", now=2.0), seen("c"))
    assert actions == []
    state, actions = play(state, seen("a", 3.0))
    assert actions == [r.Invite(round=1, attempt=1, sites=ROSTER, closes_at=13.0)]


def second_round() -> r.State:
    """The same, with round 2 open."""
    state, _ = play(opened(), *(answer(site) for site in ROSTER), r.Committed(now=3.0))
    return state


def test_most_sites_having_gone_on_from_another_model_stops_the_run() -> None:
    answers = [answer("a", "base", round=2), answer("b", "base", round=2), answer("c", round=2)]
    _, actions = play(second_round(), *answers)
    (stop,) = actions[-1:]
    assert isinstance(stop, r.Stop)
    assert stop.code == "older"
    assert "a, b" in stop.reason


def test_one_site_cannot_stop_the_run_by_such_a_claim() -> None:
    answers = [answer("a", "base", round=2), answer("b", round=2), answer("c", round=2)]
    _, actions = play(second_round(), *answers)
    close = r.Close(round=2, admitted=("b", "c"), refused=(("a", "base"),), late=())
    assert actions[-1] == close


def test_another_open_model_is_no_older_copy() -> None:
    _, actions = play(opened(), *(answer(site, "base") for site in ROSTER))
    (stop,) = actions
    assert isinstance(stop, r.Stop)
    assert stop.code == "no-updates"

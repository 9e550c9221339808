"""What a run looks like: the live table, plain lines, nothing."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from collegium.cli.lines import PlainLines
from collegium.cli.live import LiveView
from collegium.cli.view import Clock, View, view_for
from collegium.core.plan import Plan
from collegium.server.store import Release

MakePlan = Callable[..., Plan]


def release(number: int, plan: Plan, **changes: Any) -> Release:
    names = tuple(site.name for site in plan.sites)
    values: dict[str, Any] = {
        "round": number,
        "model_sha256": "sha256:00",
        "prev_sha256": "sha256:00",
        "sites": names,
        "epsilon_by_site": dict.fromkeys(names, 0.1 * number),
        "bytes_up": 7610,
        "bytes_down": 13_078,
        "metrics": {"accuracy": 0.5},
    }
    return Release(**(values | changes))


def screen(encoding: str = "utf-8") -> Console:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    return Console(file=stream, force_terminal=True, width=100, height=40, color_system=None)


def drawn(view: LiveView, console: Console) -> str:
    with console.capture() as seen:
        console.print(view._render())  # the frame, without the thread that repeats it
    return seen.get()


def test_table_shows_rounds_epsilon_bytes_and_sites(make_plan: MakePlan) -> None:
    plan, console = make_plan(3, rounds=5), screen()
    view = LiveView(console)
    assert "start" not in drawn(view, console)
    view.stage("data")
    view.started(plan, {}, [])
    view.stage("rounds")
    view.round_done(release(1, plan))
    view.answered(2, "s0", "ok")
    view.answered(2, "s2", "norm")
    text = drawn(view, console)
    assert "round 2 of 5" in text
    assert "0.500" in text and "0.10" in text and "7.61 kB" in text and "13.1 kB" in text
    assert "epsilon of 3" in text
    assert "s0 done" in text and "s1 waiting" in text and "s2 refused (norm)" in text
    assert "✓ data" in text and "● rounds" in text and "○ edge" in text


def test_late_and_refused_sites_stay_in_their_row(make_plan: MakePlan) -> None:
    plan, console = make_plan(3), screen()
    view = LiveView(console)
    view.started(plan, {}, [])
    view.stage("rounds")
    view.round_done(release(1, plan, sites=("s0",), refused=(("s1", "layout"),), late=("s2",)))
    text = drawn(view, console)
    assert "s1 refused (layout), s2 late" in text
    assert "s2 late" in text.rpartition("round 1:")[2]


def test_resumed_run_begins_where_it_stopped(make_plan: MakePlan) -> None:
    plan, console = make_plan(rounds=9), screen()
    view = LiveView(console)
    view.started(plan, {}, [release(1, plan), release(2, plan)])
    view.stage("rounds")
    assert "round 3 of 9" in drawn(view, console)


def test_many_sites_are_counted(make_plan: MakePlan) -> None:
    plan, console = make_plan(40), screen()
    view = LiveView(console)
    view.started(plan, {}, [])
    view.stage("rounds")
    view.answered(1, "s3", "ok")
    assert "39 waiting  1 done" in drawn(view, console)


def test_long_step_shows_how_far_it_is(make_plan: MakePlan) -> None:
    plan, console = make_plan(), screen()
    view = LiveView(console)
    view.started(plan, {}, [])
    view.stage("edge")
    view.progress("distil", 0.5)
    assert "distil" in drawn(view, console)


def test_skipped_stage_is_not_ticked(make_plan: MakePlan) -> None:
    console = screen()
    with LiveView(console) as view:
        for name in ("data", "rounds", "report"):
            view.stage(name)
    assert "○ baselines" in drawn(view, console)
    assert "✓ report" in drawn(view, console)


def test_names_cannot_move_the_cursor(make_plan: MakePlan) -> None:
    plan, console = make_plan(2), screen()
    view = LiveView(console)
    view.started(plan, {}, [])
    view.stage("rounds")
    view.answered(1, "s0", "\x1b[2J[bold]x")
    view.progress("\x1b]0;title\x07", 0.1)
    text = drawn(view, console)
    assert "\x1b" not in text and "\x07" not in text
    assert "[bold]x" in text


def test_terminal_without_unicode_gets_plain_marks(make_plan: MakePlan) -> None:
    console = screen("ascii")
    view = LiveView(console)
    view.stage("data")
    text = drawn(view, console)
    assert "> data" in text and text.isascii()


def test_plain_lines_are_few_and_without_control_codes(make_plan: MakePlan) -> None:
    plan, out = make_plan(3, rounds=60), io.StringIO()
    view = PlainLines(Console(file=out, width=40))
    view.stage("rounds")
    view.started(plan, {}, [])
    for number in range(1, 61):
        view.round_done(release(number, plan, late=("s2",) if number == 13 else ()))
    lines = out.getvalue().splitlines()
    assert "\x1b" not in out.getvalue()
    assert len([line for line in lines if line.startswith("  round")]) == 6
    assert "round 60 of 60, accuracy 0.500, epsilon 6.00 of 3" in lines[-1]
    assert [line for line in lines if "s2 late" in line] == [lines[3]]


def test_plain_lines_of_a_short_run_without_privacy(make_plan: MakePlan) -> None:
    plan, out = make_plan(2, rounds=2, privacy={"enabled": False}), io.StringIO()
    view = PlainLines(Console(file=out))
    view.seed(3, 1, 2)
    view.started(plan, {}, [])
    for number in (1, 2):
        view.round_done(release(number, plan, epsilon_by_site={}, metrics={}))
    text = out.getvalue()
    assert "seed 3 (1 of 2)" in text and "round 1 of 2" in text and "round 2 of 2" in text
    assert "epsilon" not in text and "accuracy" not in text


@pytest.mark.parametrize(
    ("terminal", "silent", "kind"),
    [(True, False, LiveView), (False, False, PlainLines), (True, True, View), (False, True, View)],
)
def test_view_follows_the_output(terminal: bool, silent: bool, kind: type[View]) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal)
    assert type(view_for(console, silent=silent)) is kind


def test_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = Console(file=io.StringIO(), force_terminal=True)
    assert type(view_for(console, silent=False)) is PlainLines


def test_clock_multiplies_the_mean_of_the_last_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([0.0, 2.0, 4.0])
    monkeypatch.setattr("collegium.cli.view.time.monotonic", lambda: next(times))
    clock = Clock()
    assert clock.left(10) is None
    clock.tick()
    clock.tick()
    assert clock.left(10) == 20.0
    assert clock.left(0) is None


def test_a_real_run_shows_who_is_away_and_who_trains(make_plan: MakePlan) -> None:
    plan, console = make_plan(4, rounds=5), screen()
    view = LiveView(console)
    view.stages(("rounds", "report"))
    view.started(plan, {}, [])
    view.stage("rounds")
    view.site_state("s3", "absent")
    for site in ("s0", "s1", "s2"):
        view.invited(1, site)
    view.answered(1, "s1", "ok")
    text = drawn(view, console)
    assert "s0 training" in text and "s1 done" in text and "s3 absent" in text
    assert "○ report" in text and "edge" not in text and "baselines" not in text
    view.round_done(release(1, plan, sites=("s0", "s1", "s2"), late=("s3",)))
    view.invited(2, "s0")
    text = drawn(view, console)
    assert "round 2:" in text
    assert "s0 training" in text and "s1 waiting" in text and "s2 waiting" in text


def test_what_happens_around_a_run_is_a_line(make_plan: MakePlan) -> None:
    console = screen()
    with console.capture() as seen:
        PlainLines(console).note("superlink ended\x1b[31m; starting it again")
        LiveView(console).note("going on in 2 s")
    text = seen.get()
    assert "superlink ended" in text and "\x1b[31m" not in text
    assert "going on in 2 s" in text

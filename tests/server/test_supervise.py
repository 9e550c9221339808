"""Keeping processes running and a job going, with a clock that the test moves."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import CollegiumError, Interrupted, Refused
from collegium.server.coordinator_state import hold_run
from collegium.server.events import EventLog
from collegium.server.run_folder import save_stage
from collegium.server.supervise import Keeper, Pursuit, told_error


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Process:
    name: str = "superlink"
    alive: bool = True
    exit_code: int | None = None
    starts: list[float] = field(default_factory=list)
    clock: Any = None
    last_words: str = ""

    def start(self) -> None:
        self.starts.append(self.clock.now)
        self.alive = True


def test_a_process_that_ends_is_started_again_with_a_growing_pause() -> None:
    clock = Clock()
    process = Process(clock=clock)
    other = Process(name="superexec", clock=clock)
    said: list[tuple[str, str]] = []
    keeper = Keeper([process, other], on_restart=lambda *told: said.append(told), clock=clock)
    for _ in range(4):
        process.alive, process.exit_code = False, -9
        while not process.alive:
            keeper.tick()
            clock.now += 0.5
    assert said == [("superlink", "-9")] * 4
    process.alive, process.exit_code, process.last_words = False, 75, "Error: The disk is full."
    keeper.tick()
    assert said[-1] == ("superlink", "75; it said: Error: The disk is full.")
    gaps = [b - a for a, b in zip(process.starts, process.starts[1:], strict=False)]
    assert gaps == sorted(gaps) and gaps[-1] >= 8
    assert other.starts == []


def test_a_process_that_would_end_so_again_is_given_up() -> None:
    process = Process(clock=Clock())
    keeper = Keeper([process], final=(65,), clock=lambda: 0.0)
    process.alive, process.exit_code, process.last_words = False, 65, "Error: No records."
    with pytest.raises(Interrupted, match="65; it said: Error: No records"):
        keeper.tick()


def test_after_a_steady_minute_the_pause_is_short_again() -> None:
    clock = Clock()
    process = Process(clock=clock)
    keeper = Keeper([process], clock=clock)
    for _ in range(5):
        process.alive = False
        while not process.alive:
            keeper.tick()
            clock.now += 0.5
    clock.now += 61
    keeper.tick()
    process.alive, before = False, clock.now
    while not process.alive:
        keeper.tick()
        clock.now += 0.5
    assert process.starts[-1] - before <= 1.5


# --- a job over its Flower runs -----------------------------------------------------------------


@dataclass
class Info:
    status: str = "running"
    substatus: str = ""
    over: bool = False


class Flower:
    """Flower runs that do what the test's script says, one script each."""

    def __init__(self, folder: Path, *scripts: Callable[["Flower", int], Info | None]) -> None:
        self.folder, self.scripts = folder, list(scripts)
        self.submitted: list[dict[str, str]] = []
        self.stopped: list[int] = []

    def submit(self, app: bytes, config: dict[str, str]) -> int:
        self.submitted.append(config)
        return len(self.submitted)

    def run(self, run_id: int) -> Info | None:
        return self.scripts[run_id - 1](self, run_id)

    def stop(self, run_id: int) -> None:
        self.stopped.append(run_id)

    def write(self, kind: str, **fields: Any) -> None:
        log = EventLog(self.folder)
        log.write(kind, **fields)
        log.close()


def finishes(flower: Flower, run_id: int) -> Info:
    flower.write("started", run_id=run_id)
    flower.write("finished", run_id=run_id)
    save_stage(flower.folder, "federation", {"job": "j"})
    return Info()


def stops_with(code: int) -> Callable[[Flower, int], Info]:
    def script(flower: Flower, run_id: int) -> Info:
        flower.write(
            "stopped", run_id=run_id, exit_code=code, what="no quorum", why="late", cure="wait"
        )
        return Info(status="finished", over=True)

    return script


def vanishes(flower: Flower, run_id: int) -> Info | None:
    return None


def pursuit(flower: Flower, clock: Clock, *, supervise: bool = True) -> Any:
    heard: list[Any] = []
    said: list[str] = []

    def sleep(seconds: float) -> None:
        clock.now += seconds

    made = Pursuit(
        flower=flower,
        app=b"fab",
        job="job-1",
        folder=flower.folder,
        supervise=supervise,
        on_event=heard.append,
        on_flower=said.append,
        sleep=sleep,
        clock=clock,
    )
    return made, heard, said


def test_a_run_that_finishes_is_submitted_once(tmp_path: Path) -> None:
    flower = Flower(tmp_path, finishes)
    made, heard, _ = pursuit(flower, Clock(), supervise=False)
    made.follow()
    assert flower.submitted == [{"job": "job-1"}]
    assert [event["kind"] for event in heard] == ["started", "finished"]


def test_a_finished_run_is_not_submitted(tmp_path: Path) -> None:
    save_stage(tmp_path, "federation", {"job": "j"})
    flower = Flower(tmp_path)
    made, _, _ = pursuit(flower, Clock())
    made.follow()
    assert flower.submitted == []


def test_under_supervision_the_same_job_goes_on(tmp_path: Path) -> None:
    flower = Flower(tmp_path, vanishes, stops_with(75), finishes)
    clock = Clock()
    made, _, said = pursuit(flower, clock)
    made.follow()
    assert flower.submitted == [{"job": "job-1"}] * 3
    assert "going on in 1 s" in said[0] and "no quorum" in said[1]
    assert clock.now >= 3  # 1 s, then 2 s


@pytest.mark.parametrize("script", [vanishes, stops_with(75)])
def test_without_supervision_it_ends_resumable(tmp_path: Path, script: Any) -> None:
    made, _, _ = pursuit(Flower(tmp_path, script), Clock(), supervise=False)
    with pytest.raises(Interrupted):
        made.follow()


def test_a_refusal_is_not_tried_again(tmp_path: Path) -> None:
    flower = Flower(tmp_path, stops_with(77), finishes)
    made, _, _ = pursuit(flower, Clock())
    with pytest.raises(Refused, match="no quorum"):
        made.follow()
    assert len(flower.submitted) == 1


def test_a_serverapp_that_never_comes_is_given_up(tmp_path: Path) -> None:
    """With SuperExec dead, a Flower run flips between starting and pending for ever."""
    flower = Flower(tmp_path, lambda *_: Info(status="pending"), finishes)
    clock = Clock()
    made, _, _ = pursuit(flower, clock)
    made.follow()
    assert flower.stopped == [1] and len(flower.submitted) == 2
    assert 180 <= clock.now < 200


def test_a_serverapp_that_dies_is_missed_long_before_its_lease_ends(tmp_path: Path) -> None:
    clock = Clock()
    held: list[Any] = []

    def dies(flower: Flower, run_id: int) -> Info:
        if not held and clock.now < 5:
            held.append(hold_run(tmp_path, run_id))
            held[0].__enter__()
        elif clock.now > 10 and len(held) == 1:
            held[0].__exit__(None, None, None)
            held.append("gone")
        return Info()

    flower = Flower(tmp_path, dies, finishes)
    made, _, _ = pursuit(flower, clock)
    made.follow()
    assert flower.stopped == [1]
    assert clock.now < 20


def test_one_that_is_at_work_already_is_followed(tmp_path: Path) -> None:
    flower = Flower(tmp_path, finishes)
    made, _, said = pursuit(flower, Clock())
    with hold_run(tmp_path, 1):
        made.follow()
    assert flower.submitted == []
    assert "at work already" in said[0]


def test_an_unreachable_superlink_is_waited_for_or_told(tmp_path: Path) -> None:
    calls = {"n": 0}

    def away(flower: Flower, run_id: int) -> Info:
        calls["n"] += 1
        if calls["n"] < 200:
            raise Interrupted("the SuperLink cannot be reached")
        return finishes(flower, run_id)

    made, _, _ = pursuit(Flower(tmp_path, away), Clock(), supervise=False)
    with pytest.raises(Interrupted, match="cannot be reached"):
        made.follow()
    calls["n"] = 0
    flower = Flower(tmp_path, away)
    made, _, _ = pursuit(flower, Clock())
    made.patience = type(made.patience)(start_s=1e9)
    made.follow()
    assert len(flower.submitted) == 1


@pytest.mark.parametrize(
    ("code", "kind"), [(75, Interrupted), (77, Refused), (70, CollegiumError), (12, CollegiumError)]
)
def test_errors_keep_their_code_and_words(code: int, kind: type[CollegiumError]) -> None:
    error = told_error({"exit_code": code, "what": "w", "why": "y", "cure": "c"})
    assert type(error) is kind
    assert error.message() == "w. Y. Cure: c."

"""``demo`` and ``simulate``: flags, one JSON on stdout, interruption, failed gates, seeds."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from collegium.cli.main import run
from collegium.cli.running import RunFlags
from collegium.core.errors import Interrupted, InvalidInput
from collegium.core.plan import Plan

TASK = ["demo", "--task", "breast-cancer", "--rounds", "2"]


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


Type = Callable[..., Answer]


@pytest.fixture
def type_in(capsys: pytest.CaptureFixture[str]) -> Type:
    def call(*words: object) -> Answer:
        code = run([str(word) for word in words])
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture
def passing_edge(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put a stand-in for the edge stage, which has tests of its own; return its answer."""
    found: dict[str, Any] = {
        "accuracy": 0.9,
        "agreement": 0.97,
        "recipe": "fp32",
        "size_bytes": 4000,
        "size_ratio": 12.0,
        "verified": True,
        "reason": "",
        "candidates": [],
        "bundle_sha256": "sha256:00",
    }
    monkeypatch.setattr("collegium.simulations.stages.publish_run", lambda *_, **__: found)
    return found


def test_demo_shows_figures_report_and_what_to_type_next(
    type_in: Type, passing_edge: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "a run"
    answer = type_in(*TASK, "--out", out)
    assert (answer.code, answer.err) == (0, "")
    for text in ("federated, released", "each site alone", "epsilon", "no privacy guarantee"):
        assert text in answer.out
    assert "agrees with the global model in 97.0%, verified" in answer.out
    assert str(out / "report.html") in answer.out.replace("\n", "")
    assert "collegium edge verify '" in answer.out and "--allow-simulated" in answer.out
    assert "\x1b" not in answer.out
    assert (out / "report.html").is_file()


def test_json_is_result_json_and_nothing_else(
    type_in: Type, passing_edge: dict[str, Any], tmp_path: Path
) -> None:
    answer = type_in(*TASK, "--out", tmp_path / "run", "--json", "--verbose")
    assert answer.code == 0
    assert answer.out == (tmp_path / "run" / "result.json").read_text()
    assert json.loads(answer.out)["rounds"] == 2


def test_finished_run_is_refused_and_with_resume_left_as_it_is(
    type_in: Type, passing_edge: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert type_in(*TASK, "--out", out, "--json").code == 0
    before = (out / "result.json").read_bytes()
    assert type_in(*TASK, "--out", out).code == 73
    assert type_in(*TASK, "--out", out, "--resume").code == 0
    assert (out / "result.json").read_bytes() == before


def test_without_privacy_there_is_no_epsilon(
    type_in: Type, passing_edge: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert type_in(*TASK, "--out", out, "--no-privacy").code == 0
    values = json.loads((out / "result.json").read_text())
    assert values["privacy"] is None and values["epsilon_max"] is None
    assert type_in("ledger", "show", out).code == 0


def test_failed_gate_is_1_after_everything_is_written(
    type_in: Type, passing_edge: dict[str, Any], tmp_path: Path
) -> None:
    passing_edge.update(verified=False, reason="agreement .90 is below .95")
    answer = type_in(*TASK, "--out", tmp_path / "run", "--json")
    assert answer.code == 1
    assert json.loads(answer.out)["edge"]["verified"] is False
    assert "agreement .90 is below .95" in json.loads(answer.err)["error"]["message"]
    assert (tmp_path / "run" / "report.html").is_file()
    assert type_in(*TASK, "--out", tmp_path / "run", "--resume").code == 1


def test_an_edge_stage_that_could_not_run_is_said_and_ends_with_1(
    type_in: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rounds are kept: result and report are there, and name what is missing."""

    def fail(*_: object, **__: object) -> None:
        raise InvalidInput("the transfer set is too small")

    monkeypatch.setattr("collegium.simulations.stages.publish_run", fail)
    answer = type_in(*TASK, "--out", tmp_path / "run")
    assert answer.code == 1 and "transfer set is too small" in answer.err
    values = json.loads((tmp_path / "run" / "result.json").read_text())
    assert values["edge"] is None and "too small" in values["edge_reason"]
    assert "Not made" in (tmp_path / "run" / "report.html").read_text()


def test_simulate_runs_a_plan_file(
    type_in: Type, passing_edge: dict[str, Any], make_plan: Callable[..., Plan], tmp_path: Path
) -> None:
    from collegium.core.plan_file import write_plan
    from collegium.simulations.demo import demo_plan

    path = tmp_path / "plan.toml"
    path.write_text(write_plan(demo_plan("breast-cancer")))
    words = ("simulate", path, "--rounds", 2, "--epsilon", 1.5, "--seed", 3, "--json")
    values = json.loads(type_in(*words, "--out", tmp_path / "run").out)
    assert values["seeds"] == [3]
    assert values["epsilon_budget"] == 1.5
    assert 1.0 < values["epsilon_max"] <= 1.5


def test_seeds_are_whole_runs_and_resume_skips_what_is_done(
    type_in: Type, passing_edge: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    words = (*TASK, "--out", out, "--seed", 4, "--seeds", 2)
    answer = type_in(*words)
    assert answer.code == 0
    assert "seed 5 (2 of 2)" in answer.out and "Medians over the seeds 4, 5" in answer.out
    values = json.loads((out / "result.json").read_text())
    assert values["seeds"] == [4, 5]
    assert [run["seeds"] for run in values["runs"]] == [[4], [5]]
    assert (out / "report.html").is_file() and (out / "seeds" / "5" / "report.html").is_file()
    (out / "result.json").unlink()
    (out / "seeds" / "5" / "result.json").unlink()
    before = (out / "seeds" / "4" / "result.json").read_bytes()
    again = type_in(*words, "--resume")
    assert again.code == 0
    assert (out / "seeds" / "4" / "result.json").read_bytes() == before
    assert json.loads((out / "result.json").read_text())["global"] == values["global"]
    assert type_in(*TASK, "--out", out, "--resume").code == 73


@pytest.mark.parametrize("flag", [(), ("--json",)])
def test_interrupted_run_says_what_to_type(
    type_in: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: tuple[str, ...]
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("collegium.simulations.run.simulate", stop)
    answer = type_in(*TASK, "--out", tmp_path / "a run", "--seed", 2, *flag)
    assert answer.code == 75
    again = " ".join(["--rounds 2 --seed 2", *flag, "--resume"])
    assert (
        f"type collegium demo --task breast-cancer --out '{tmp_path / 'a run'}' {again} to go on"
        in answer.err
    )


def test_engine_that_stops_early_says_the_same(
    type_in: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise Interrupted("the run stopped: quorum", why="fewer sites answered")

    monkeypatch.setattr("collegium.simulations.run.simulate", stop)
    answer = type_in(*TASK, "--out", tmp_path / "run")
    assert answer.code == 75
    assert "quorum" in answer.err and "--resume" in answer.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("demo --no-privacy --epsilon 1", 64),
        ("demo --task digit", 64),
        ("demo --seeds 0", 64),
        ("demo --rounds 0", 64),
        ("demo --epsilon 500", 65),
        ("demo --epsilon nan", 65),
        ("simulate none.toml", 66),
        ("report .", 66),
        ("publish . --out bundle", 66),
        ("publish .", 64),
    ],
)
def test_wrong_words_have_their_exit_code(
    type_in: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, code: int
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = type_in(*words.split())
    assert (answer.code, answer.out) == (code, "")
    assert "Traceback" not in answer.err
    assert list(tmp_path.iterdir()) == []


def test_broken_plan_is_65_before_anything_is_made(type_in: Type, tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text("schema = 1\n[consortium]\n")
    assert type_in("simulate", path, "--out", tmp_path / "run").code == 65
    assert not (tmp_path / "run").exists()


def test_flags_are_typed_again_as_they_were() -> None:
    flags = RunFlags(
        out=Path("x"), resume=False, rounds=3, epsilon=0.5, seed=0, seeds=4, no_privacy=False,
        as_json=True, verbose=True,
    )  # fmt: skip
    words = "--out x --rounds 3 --epsilon 0.5 --seed 0 --seeds 4 --json --verbose --resume"
    assert flags.typed() == words.split()

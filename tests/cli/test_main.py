"""The command line as a whole: verbs, help, exit codes, and errors without tracebacks."""

import errno
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from collegium import __version__
from collegium.cli import verbs
from collegium.cli.main import cli, run
from collegium.core.errors import CollegiumError, InvalidPlan, NotBuiltYet, Problem

VERBS = [name for section in verbs.SECTIONS.values() for name in section]


def call(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collegium", *words],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


def test_verbs_are_those_of_the_design() -> None:
    assert set(VERBS) == {
        "demo", "init", "plan", "simulate", "up", "consortium", "site", "provision",
        "coordinator", "audit", "ledger", "publish", "edge", "report",
    }  # fmt: skip


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["nonsense"], ["plan", "--help"]])
def test_help_imports_neither_torch_nor_flwr(words: list[str]) -> None:
    script = (
        "import sys; from collegium.cli.main import run; run(sys.argv[1:]);"
        "heavy = {'torch', 'flwr', 'numpy', 'matplotlib', 'rich', 'sklearn'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_plan_explain_imports_no_torch(tmp_path: Path) -> None:
    assert run(["init", str(tmp_path)]) == 0
    script = (
        "import sys; from collegium.cli.main import run;"
        "code = run(['plan', 'explain', sys.argv[1]]);"
        "sys.exit(code or sorted({'torch', 'flwr', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "plan.toml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.strip() == "[]", done.stderr


def test_help_names_every_verb_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    page = capsys.readouterr().out
    places = [page.index(f"\n  {name} ") for name in VERBS]
    assert places == sorted(places)
    assert all(len(line) <= 80 for line in page.splitlines())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"collegium {__version__}\n"


def leaves(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from leaves(child, (*words, name))


@pytest.mark.parametrize("words", list(leaves(cli)), ids=" ".join)
def test_every_verb_has_help_with_an_example(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    page = capsys.readouterr().out
    assert "Example" in page and f"  collegium {' '.join(words)}".rstrip() in page


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("simulat plan.toml", "did you mean 'simulate'?"),
        ("nonsense", "There is no verb 'nonsense'"),
        ("plan check", "Missing argument 'PLAN'"),
        ("plan check a b", "unexpected extra argument"),
        ("plan check --josn x", "--json"),
        ("plan chekc x", "did you mean 'check'?"),
        ("--verzion", "--version"),
    ],
)
def test_usage_errors_are_64(line: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(line.split()) == 64
    captured = capsys.readouterr()
    assert text in captured.err and captured.out == ""


def test_no_words_at_all_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 64
    assert "Start here" in capsys.readouterr().out


def fail_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def callback() -> None:
        raise error

    command = click.Command(
        "demo",
        callback=callback,
        params=[click.Option(["--json"], is_flag=True, expose_value=False)],
    )
    monkeypatch.setattr(verbs.Verbs, "get_command", lambda self, ctx, name: command)


def members(kind: type[CollegiumError]) -> Iterator[type[CollegiumError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from members(child)


@pytest.mark.parametrize("kind", sorted(members(CollegiumError), key=lambda k: k.__name__))
def test_each_error_of_the_tree_answers_with_its_exit_code(
    kind: type[CollegiumError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, kind("It broke", why="because", cure="mend it"))
    assert run(["demo"]) == kind.exit_code
    assert capsys.readouterr().err == "Error: It broke. Because. Cure: mend it.\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort(), OSError(28, "full")])
def test_an_interrupted_run_is_75_and_says_how_to_go_on(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fail_with(monkeypatch, error)
    assert run(["demo"]) == 75
    assert "--resume" in capsys.readouterr().err


def test_a_bug_is_70_in_one_line_and_its_traceback_is_in_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fail_with(monkeypatch, ZeroDivisionError("secret 17"))
    assert run(["demo"]) == 70
    shown = capsys.readouterr().err
    (log,) = tmp_path.glob("collegium-*.log")
    assert str(log) in shown and "Traceback" not in shown and "secret" not in shown
    assert shown.count("\n") == 1
    assert "ZeroDivisionError: secret 17" in log.read_text(encoding="utf-8")


def test_a_bug_during_a_run_is_in_the_log_of_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    handler = logging.FileHandler(log)
    logging.getLogger("collegium").addHandler(handler)
    try:
        fail_with(monkeypatch, ZeroDivisionError())
        assert run(["demo"]) == 70
    finally:
        logging.getLogger("collegium").removeHandler(handler)
        handler.close()
    assert str(log) in capsys.readouterr().err
    assert "ZeroDivisionError" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotBuiltYet("x"), 69),
        (ValueError("x"), 70),
        (click.UsageError("x"), 64),
        (OSError(errno.ENAMETOOLONG, "File name too long"), 66),
    ],
)
def test_with_json_errors_are_json_on_stderr_and_stdout_is_empty(
    error: BaseException,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fail_with(monkeypatch, error)
    assert run(["demo", "--json"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert json.loads(captured.err)["error"]["exit_code"] == code


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--version"], 0),
        (["edge", "pull"], 64),
        (["plan", "check", "no-such.toml"], 66),
        (["x"], 64),
    ],
)
def test_exit_codes_of_a_real_process(words: list[str], code: int) -> None:
    done = call(*words)
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_on_a_terminal_each_problem_shows_place_reason_and_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Problem(
        where="[rounds] count", what="[red]0[/red] is below 1", why="Why", cure="Cure"
    )
    fail_with(monkeypatch, InvalidPlan("plan.toml", [problem]))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run(["demo"]) == 65
    page = capsys.readouterr().err
    assert "plan.toml: 1 problem in this plan" in page
    for text in ("[rounds] count", "[red]0[/red] is below 1", "Why.", "Cure"):
        assert text in page

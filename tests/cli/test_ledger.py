"""``ledger show``: verified before it is shown, with the exit codes of an auditor."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.cli.main import run
from collegium.core.plan import Plan
from collegium.core.signing import load_or_create
from collegium.privacy.accountant import epsilon_of
from collegium.privacy.derive import mechanism
from collegium.privacy.ledger import Ledger

Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def show(capsys: pytest.CaptureFixture[str]) -> Show:
    def call(*words: object) -> tuple[int, str, str]:
        code = run(["ledger", "show", *map(str, words)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def folder(tmp_path: Path, make_plan: Callable[..., Plan]) -> Path:
    """A run's folder with two ledgers of three rounds each."""
    from collegium.core.mechanism import Budget

    plan = make_plan(2)
    for site in plan.sites:
        key = load_or_create(tmp_path / "keys" / "private" / f"{site.name}.pem")
        budget = Budget(epsilon=3.0, delta=1e-3, unit="record", relation="add-or-remove-one")
        ledger = Ledger(tmp_path / "ledgers" / f"{site.name}.sqlite", "heart", budget, key)
        spec = replace(
            mechanism(plan, site, noise_multiplier=3.0, trainable_digest="sha256:00"), steps=2
        )
        for number in (1, 2, 3):
            names: dict[str, Any] = {"job": "job", "round": number, "attempt": 1}
            ledger.reserve(**names, base_sha256="sha256:11", spec=spec)
            ledger.commit(**names, update_sha256="sha256:22")
        ledger.close()
    return tmp_path


def edit(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DROP TRIGGER entries_no_update")
        database.execute("DROP TRIGGER entries_no_delete")
        for statement in statements:
            database.execute(statement)
    database.close()


def test_json_holds_what_was_recomputed(show: Show, folder: Path) -> None:
    code, out, _ = show(folder, "--json")
    assert code == 0
    first, second = json.loads(out)["ledgers"]
    assert [first["path"][-9:], second["path"][-9:]] == ["s0.sqlite", "s1.sqlite"]
    assert first["asset"] == "heart" and first["budget"]["epsilon"] == 3.0
    assert len(first["entries"]) == 7
    assert first["head"] == first["entries"][-1]["hash"]
    assert first["signatures"] == "verified"
    from collegium.core.mechanism import MechanismSpec

    spec = MechanismSpec(**first["entries"][1]["spec"])
    assert first["epsilon"] == epsilon_of([(spec, 2)] * 3, 1e-3)


def test_table_shows_budget_head_and_newest_entries(show: Show, folder: Path) -> None:
    path = folder / "ledgers" / "s0.sqlite"
    code, out, _ = show(path)
    assert code == 0
    assert "heart" in out and " of 3 at delta 0.001" in out and "head sha256:" in out
    assert "reserve" in out and "commit" in out and "genesis" in out
    assert "chain and signatures hold" in out


def test_only_the_newest_entries_unless_all(
    show: Show, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collegium.cli.ledger._LAST", 2)
    assert "5 earlier entries" in show(folder / "ledgers" / "s0.sqlite")[1]
    assert "earlier" not in show(folder / "ledgers" / "s0.sqlite", "--all")[1]


def test_ledger_without_its_key_says_so(show: Show, folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.sqlite"
    alone.write_bytes((folder / "ledgers" / "s0.sqlite").read_bytes())
    assert "signatures not checked" in show(alone)[1]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = replace(body, '\"steps\":2', '\"steps\":1') WHERE seq = 1",
        "DELETE FROM entries WHERE seq = 3",
        "UPDATE entries SET signature = zeroblob(64) WHERE seq = 2",
        "DELETE FROM entries",
        "DROP TABLE entries",
    ],
)
def test_tampered_ledger_is_2_and_not_shown(show: Show, folder: Path, statement: str) -> None:
    edit(folder / "ledgers" / "s1.sqlite", statement)
    code, out, err = show(folder)
    assert (code, out) == (2, "")
    assert "Error: " in err


def test_file_that_is_no_ledger_is_2(show: Show, tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"not a database, whatever its name says" * 40)
    assert show(tmp_path / "x.sqlite")[0] == 2


def test_ledger_cut_short_behind_its_run_is_3(show: Show, folder: Path) -> None:
    _, out, _ = show(folder, "--json")
    heads = {Path(book["path"]).stem: book["head"] for book in json.loads(out)["ledgers"]}
    spent = {name: {"ledger_head": head} for name, head in heads.items()}
    (folder / "result.json").write_text(
        json.dumps({"schema": 1, "privacy": {"epsilon_by_site": spent}})
    )
    assert show(folder)[0] == 0
    edit(folder / "ledgers" / "s0.sqlite", "DELETE FROM entries WHERE seq = 6")
    assert show(folder)[0] == 3


def test_over_budget_is_4_and_shown(
    show: Show, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("collegium.privacy.accountant.epsilon_of", lambda spend, delta: 3.5)
    code, out, err = show(folder / "ledgers" / "s0.sqlite")
    assert code == 4
    assert "3.500 of 3" in out and "over its budget" in err


def test_missing_ledger_is_66(show: Show, tmp_path: Path) -> None:
    assert show(tmp_path)[0] == 66
    assert show(tmp_path / "none.sqlite")[0] == 66


@pytest.mark.parametrize("verb", ["verify", "export"])
def test_other_verbs_are_not_built_yet(verb: str) -> None:
    assert run(["ledger", verb, "x"]) == 69

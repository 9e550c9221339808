"""``ledger show``, ``verify`` and ``export``: nothing unverified, an auditor's exit codes."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.cli.main import run
from collegium.core.digest import canonical_bytes
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.plan import Plan
from collegium.core.signing import fingerprint, load_or_create, open_envelope, save_public
from collegium.privacy.accountant import epsilon_of, filter_epsilon
from collegium.privacy.derive import mechanism
from collegium.privacy.ledger import Ledger
from collegium.privacy.ledger_files import adopt_anchor
from collegium.privacy.ledger_rows import GENESIS_HEAD, row_hash
from collegium.privacy.ledger_store import SCHEMA, VERSION

Show = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ledger(capsys: pytest.CaptureFixture[str]) -> Show:
    """Any verb of the group: exit code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        code = run(["ledger", *map(str, words)])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def show(ledger: Show) -> Show:
    return lambda *words: ledger("show", *words)


@pytest.fixture
def folder(tmp_path: Path, make_plan: Callable[..., Plan]) -> Path:
    """A run's folder with two ledgers of three rounds each."""
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
    """Change rows as an administrator can: without the triggers, which are put back."""
    with sqlite3.connect(path) as database:
        named = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        triggers = database.execute(named).fetchall()
        for name, _ in triggers:
            database.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            database.execute(statement)
        if "DROP TABLE entries" not in statements:
            for _, trigger in triggers:
                database.execute(trigger)
    database.close()


def rewrite(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Change the bodies and chain and sign them anew: what the site's own key can do."""
    key = load_or_create(path.parent.parent / "keys" / "private" / f"{path.stem}.pem")
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT body FROM entries ORDER BY seq").fetchall()
        bodies = [json.loads(body) for (body,) in rows]
        change(bodies)
        head, made = GENESIS_HEAD, list[tuple[object, ...]]()
        for seq, body in enumerate(bodies):
            text = canonical_bytes(body)
            digest = row_hash(seq, head, text)
            made.append((seq, head, text.decode(), digest, key.sign(digest.encode())))
            head = digest
    database.close()
    path.unlink()
    with sqlite3.connect(path) as database:
        for statement in (*SCHEMA, f"PRAGMA user_version = {VERSION}"):
            database.execute(statement)
        database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?)", made)
    database.close()


def smaller_cap(bodies: list[dict[str, Any]]) -> None:
    bodies[0]["budget"]["epsilon"] = 0.1


def smaller_claim(bodies: list[dict[str, Any]]) -> None:
    bodies[3]["claim"]["epsilon"] -= 1e-3


def test_json_holds_what_was_recomputed(show: Show, folder: Path) -> None:
    code, out, _ = show(folder, "--json")
    assert code == 0
    first, second = json.loads(out)["ledgers"]
    assert [first["path"][-9:], second["path"][-9:]] == ["s0.sqlite", "s1.sqlite"]
    assert first["asset"] == "heart" and first["budget"]["epsilon"] == 3.0
    assert len(first["entries"]) == 7
    assert first["head"] == first["entries"][-1]["hash"]
    assert first["signatures"] == "verified"
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


def test_over_budget_is_4_and_shown(show: Show, folder: Path) -> None:
    rewrite(folder / "ledgers" / "s0.sqlite", smaller_cap)
    code, out, err = show(folder / "ledgers" / "s0.sqlite")
    assert code == 4
    assert " of 0.1 at delta" in out and "over its budget" in err


def test_a_cap_that_was_lowered_later_is_not_overspent(show: Show, folder: Path) -> None:
    path = folder / "ledgers" / "s0.sqlite"
    key = load_or_create(folder / "keys" / "private" / "s0.pem")
    lower = Budget(epsilon=0.1, delta=1e-3, unit="record", relation="add-or-remove-one")
    Ledger(path, "heart", lower, key).close()
    code, out, _ = show(path)
    assert code == 0
    assert " of 0.1 at delta" in out and "policy" in out


def test_several_plans_show_both_figures(show: Show, folder: Path) -> None:
    path = folder / "ledgers" / "s0.sqlite"
    key = load_or_create(folder / "keys" / "private" / "s0.pem")
    budget = Budget(epsilon=3.0, delta=1e-3, unit="record", relation="add-or-remove-one")
    book = Ledger(path, "heart", budget, key)
    spec = book.entries()[1].spec
    assert spec is not None
    book.reserve(job="another", round=1, attempt=1, base_sha256="sha256:11", spec=spec)
    book.close()
    out = show(path, "--json")[1]
    (told,) = json.loads(out)["ledgers"]
    assert told["plans"] == 2
    assert told["epsilon"] == filter_epsilon([(spec, 8)], 1e-3)
    assert told["epsilon_fixed"] == epsilon_of([(spec, 8)], 1e-3) < told["epsilon"]
    assert "2 plans, each chosen knowing the last" in show(path)[1]


def test_missing_ledger_is_66(show: Show, tmp_path: Path) -> None:
    assert show(tmp_path)[0] == 66
    assert show(tmp_path / "none.sqlite")[0] == 66


def test_verify_a_whole_run(ledger: Show, folder: Path) -> None:
    code, out, err = ledger("verify", folder)
    assert (code, err) == (0, "")
    assert out.count(": ok, 7 entries of 'heart', epsilon ") == 2
    code, out, _ = ledger("verify", folder, "--json")
    first, second = json.loads(out)["ledgers"]
    assert (first["entries"], second["asset"]) == (7, "heart")
    assert first["epsilon"] == pytest.approx(first["pld"]) and first["renyi"] > first["pld"]


CODES: dict[str, tuple[int, Callable[[Path], None]]] = {
    "edited": (2, lambda p: edit(p, "UPDATE entries SET body = replace(body, '3.0', '4.0')")),
    "unsigned": (2, lambda p: edit(p, "UPDATE entries SET signature = x'' WHERE seq = 2")),
    "emptied": (2, lambda p: edit(p, "DELETE FROM entries")),
    "rubbish": (2, lambda p: p.write_bytes(b"not a database" * 40) and None),
    "cut": (3, lambda p: edit(p, "DELETE FROM entries WHERE seq = 6")),
    "over budget": (4, lambda p: rewrite(p, smaller_cap)),
    "claim lowered": (5, lambda p: rewrite(p, smaller_claim)),
}


@pytest.mark.parametrize(("expected", "harm"), CODES.values(), ids=CODES.keys())
def test_verify_answers_with_the_code_of_the_harm(
    ledger: Show, folder: Path, expected: int, harm: Callable[[Path], None]
) -> None:
    path = folder / "ledgers" / "s1.sqlite"
    before = ledger("show", path, "--json")[1]
    harm(path)
    heads = folder / "heads.json"
    known = [] if expected in (4, 5) else [json.loads(before)["ledgers"][0]["head"]]
    heads.write_text(json.dumps({"s1": known[0] if known else "sha256:none", "s0": "sha256:0"}))
    words = ["--heads", heads] if known else []
    code, out, err = ledger("verify", path, *words)
    assert (code, out) == (expected, "")
    assert err.startswith("Error: ")
    if not known:
        assert ledger("verify", folder)[0] == expected


def test_verify_knows_the_heads_of_the_run_that_a_ledger_lies_in(
    ledger: Show, folder: Path
) -> None:
    told = json.loads(ledger("verify", folder, "--json")[1])["ledgers"]
    seen = {Path(book["path"]).stem: {"ledger_head": book["head"]} for book in told}
    (folder / "result.json").write_text(
        json.dumps({"schema": 1, "privacy": {"epsilon_by_site": seen}})
    )
    assert ledger("verify", folder)[0] == 0
    edit(folder / "ledgers" / "s0.sqlite", "DELETE FROM entries WHERE seq = 6")
    assert ledger("verify", folder)[0] == 3
    assert ledger("verify", folder / "ledgers" / "s0.sqlite")[0] == 3
    assert ledger("verify", folder / "ledgers" / "s1.sqlite")[0] == 0


def test_verify_an_export_with_a_key_and_an_anchor(
    ledger: Show, folder: Path, tmp_path: Path
) -> None:
    path, pem = folder / "ledgers" / "s0.sqlite", folder / "keys" / "private" / "s0.pem"
    key = load_or_create(pem)
    anchor = tmp_path / "elsewhere" / "s0.anchor"
    adopt_anchor(path, key.public_key(), anchor)
    file = tmp_path / "out" / "s0.jsonl"
    code, out, _ = ledger("export", path, "--out", file)
    assert code == 0 and "7 entries" in out
    assert ledger("export", path, "--out", file)[0] == 73
    name, public = fingerprint(key.public_key()), tmp_path / "s0.pub"
    save_public(key.public_key(), public)
    for flag, given in (("--key", pem), ("--pub", public), ("--key", name)):
        assert ledger("verify", file, flag, given, "--anchor", anchor)[0] == 0
    code, _, err = ledger("verify", file)
    assert code == 64 and "--key" in err  # half a check would be worse than none
    other = fingerprint(load_or_create(tmp_path / "other.pem").public_key())
    assert ledger("verify", file, "--key", other)[0] == 2
    assert ledger("verify", file, "--key", "ed25519:x")[0] == 65
    assert ledger("verify", file, "--key", name, "--anchor", tmp_path / "none")[0] == 66
    assert ledger("verify", tmp_path / "none", "--key", name)[0] == 66
    assert ledger("verify", folder, "--anchor", anchor)[0] == 64
    (tmp_path / "heads.json").write_text("[1]")
    assert ledger("verify", file, "--key", name, "--heads", tmp_path / "heads.json")[0] == 64


@pytest.mark.parametrize("form", ["csv", "html", "dsse"])
def test_other_exports(ledger: Show, folder: Path, tmp_path: Path, form: str) -> None:
    path = folder / "ledgers" / "s0.sqlite"
    key = load_or_create(folder / "keys" / "private" / "s0.pem").public_key()
    out = tmp_path / f"out.{form}"
    assert ledger("export", path, "--out", out, "--format", form)[0] == 0
    data = out.read_bytes()
    if form == "dsse":
        assert json.loads(open_envelope(data, [key]))["predicate"]["seq"] == 6
    else:
        assert data.count(b"reserve") == data.count(b"commit") == 3
    edit(path, "UPDATE entries SET signature = x'' WHERE seq = 2")
    assert ledger("export", path, "--out", tmp_path / "more", "--format", form)[0] == 2
    assert not (tmp_path / "more").exists()


def test_exports_that_cannot_be(ledger: Show, folder: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "s0.sqlite"
    alone.parent.mkdir()
    alone.write_bytes((folder / "ledgers" / "s0.sqlite").read_bytes())
    assert ledger("export", folder, "--out", tmp_path / "x")[0] == 64  # which of the two?
    assert ledger("export", alone, "--out", tmp_path / "x", "--format", "dsse")[0] == 64
    assert ledger("export", tmp_path / "none", "--out", tmp_path / "x")[0] == 66


def test_a_missing_ledger_is_said_before_a_missing_key(tmp_path: Path) -> None:
    assert run(["ledger", "verify", str(tmp_path / "nrth.sqlite")]) == 66

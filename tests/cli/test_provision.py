"""From enrolment to a signed kit by the verbs alone, and what each of them answers when refused."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from collegium.cli.main import run
from collegium.cli.site_enroll import enroll as site_enroll

TEMPLATE = Path(__file__).resolve().parents[2] / "cli" / "templates" / "plan.toml"
SITES = ("north", "south", "east", "west")
TABLE = """
[federation]
address = "fl.example.org:8000"
coordinator = "University X"
signatures = 2
"""


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a plan, and the requests of its four sites and two members."""
    monkeypatch.chdir(tmp_path)
    text = TEMPLATE.read_text(encoding="utf-8")
    Path("plan.toml").write_text(text + TABLE, encoding="utf-8")
    Path("requests").mkdir()
    for name in SITES:
        words = ["--name", name, "--institution", f"{name} hospital", "--out", f"at-{name}"]
        assert CliRunner().invoke(site_enroll, words).exit_code == 0
        shutil.copy(f"at-{name}/{name}.request.json", "requests")
    for name in ("alice", "bob"):
        enroll(name)
        shutil.copy(f"{name}/{name}.request.json", "requests")
    return tmp_path


def enroll(name: str) -> None:
    words = ["--name", name, "--institution", f"{name} clinic", "--out", name]
    assert run(["consortium", "enroll", *words]) == 0


def answer(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert run([*words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


PROVISION = ("provision", "plan.toml", "requests", "--out", "fed")


def test_from_enrolment_to_complete_kits(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = answer(PROVISION, capsys)
    assert first["signatures_missing"] == {"plan": 2, "roster": 2} and not first["complete"]
    assert list(first["kits"]) == list(SITES)
    assert run(["plan", "sign", "fed/agreement", "--key", "alice/member.pem", "--yes"]) == 0
    shutil.copytree("fed/agreement", "requests/from-bob")
    signed = answer(
        ["plan", "sign", "requests/from-bob/plan.toml", "--key", "bob/member.pem", "--yes"], capsys
    )
    assert signed["signed"] == ["plan.dsse", "roster.dsse"] and not signed["lab"]
    last = answer(PROVISION, capsys)
    assert {m["name"]: m["signed"] for m in last["members"]} == {
        "alice": ["plan", "roster"],
        "bob": ["plan", "roster"],
    }
    assert last["complete"] and all(kit["complete"] for kit in last["kits"].values())
    assert last["roster_sha256"] == first["roster_sha256"] == signed["roster_sha256"]
    assert {m["fingerprint"] for m in last["members"]} > {signed["signer"]}


def test_words_for_people(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(PROVISION) == 0
    out = capsys.readouterr().out
    for words in (
        "keys/ca.key: made",
        "member  alice (alice clinic) has signed nothing yet",
        "plan    2 of 2 signatures are missing",
        "roster  2 of 2 signatures are missing",
        "not complete: signatures are missing",
        "collegium plan sign fed/agreement --key member.pem",
    ):
        assert words in out
    for name in ("alice", "bob"):
        assert run(["plan", "sign", "fed/kits/north", "--key", f"{name}/member.pem", "--yes"]) == 0
    shutil.copytree("fed/kits/north", "requests/north")
    capsys.readouterr()
    assert run(PROVISION) == 0
    out = capsys.readouterr().out
    for words in ("keys/ca.key: kept", "plan    signed", "roster  signed", "complete", "send each"):
        assert words in out


def test_what_is_shown_before_signing(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    roster = answer(PROVISION, capsys)
    assert run(["plan", "sign", "fed/agreement", "--key", "alice/member.pem", "--yes"]) == 0
    out = capsys.readouterr().out
    for words in (
        "four-hospitals",
        "University X at fl.example.org:8000",
        "2, each of another institution",
        "north (north hospital): at most 700 records, epsilon 3.000 at delta 0.0001",
        "60 of 1 step",
        "collegium:glyph-cnn for classification; trains head",
        "650 numbers per round (clipped, summed and noised)",
        roster["plan_sha256"],
        roster["roster_sha256"],
        "bob (bob clinic)",
        "has not signed",
        "Signed: plan.dsse and roster.dsse",
    ):
        assert words in out, words
    assert run(["plan", "sign", "fed/agreement", "--key", "alice/member.pem", "--yes"]) == 0
    out = capsys.readouterr().out
    assert "has signed plan and roster" in out and "nothing changed" in out


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_signing_twice_changes_nothing(desk: Path) -> None:
    words = ["plan", "sign", "fed/agreement", "--key", "alice/member.pem", "--yes"]
    assert run(PROVISION) == 0 and run(words) == 0
    before = contents(Path("fed/agreement"))
    assert run(words) == 0
    assert contents(Path("fed/agreement")) == before


def test_nobody_to_ask_means_nothing_signed(desk: Path) -> None:
    assert run(PROVISION) == 0
    before = contents(Path("fed/agreement"))
    words = ["plan", "sign", "fed/agreement", "--key", "alice/member.pem"]
    assert run(words) == 64 and run([*words, "--json"]) == 64
    assert contents(Path("fed/agreement")) == before


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
@pytest.mark.parametrize(("said", "code", "count"), [(b"y\n", 0, 1), (b"n\n", 77, 0)])
def test_a_terminal_is_asked(desk: Path, said: bytes, code: int, count: int) -> None:
    assert run(PROVISION) == 0
    master, slave = os.openpty()
    try:
        os.write(master, said)
        words = ["plan", "sign", "fed/agreement", "--key", "alice/member.pem"]
        done = subprocess.run(
            [sys.executable, "-m", "collegium", *words], stdin=slave, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == code and "Sign this?" in done.stdout
    for name in ("plan.dsse", "roster.dsse"):
        assert len(json.loads(Path("fed/agreement", name).read_text())["signatures"]) == count


def test_a_plan_alone_is_signed(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plan", "sign", "plan.toml", "--key", "alice/member.pem", "--yes"]) == 0
    assert "the plan alone is signed" in capsys.readouterr().out
    assert Path("plan.dsse").exists() and not Path("roster.dsse").exists()
    # a signature that was given before the roster existed is taken in
    shutil.copy("plan.dsse", "requests/alice.dsse")
    assert answer(PROVISION, capsys)["signatures_missing"] == {"plan": 1, "roster": 2}


def test_what_does_not_check_is_not_signed(desk: Path) -> None:
    assert run(PROVISION) == 0
    agreement = Path("fed/agreement")
    plan = (agreement / "plan.toml").read_text(encoding="utf-8")
    before = contents(agreement)
    words = ["plan", "sign", "fed/agreement", "--yes", "--key"]

    def refused(text: str, key: str = "alice/member.pem") -> int:
        (agreement / "plan.toml").write_text(text, encoding="utf-8")
        code = run([*words, key])
        (agreement / "plan.toml").write_bytes(before["plan.toml"])
        return code

    assert refused(plan.replace("epsilon = 3.0", "epsilon = 9.0")) == 77
    assert refused(plan.replace("epsilon = 3.0", "epsilon = -9.0")) == 65
    enroll("mallory")
    assert refused(plan, "mallory/member.pem") == 77
    assert refused(plan, "nobody/member.pem") == 66
    assert refused(plan, "alice/alice.request.json") == 65
    Path("alice/member.pem").chmod(0o644)
    assert refused(plan) == 77
    assert contents(agreement) == before


def test_a_roster_of_another_plan_is_not_signed(desk: Path) -> None:
    assert run(PROVISION) == 0
    plan = Path("plan.toml").read_text(encoding="utf-8")
    Path("plan.toml").write_text(plan.replace("epsilon = 3.0", "epsilon = 2.0"), encoding="utf-8")
    assert run(["provision", "plan.toml", "requests", "--out", "other"]) == 0
    shutil.copy("other/agreement/roster.dsse", "fed/agreement/roster.dsse")
    assert run(["plan", "sign", "fed/agreement", "--key", "alice/member.pem", "--yes"]) == 77


def test_everything_missing_at_once(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("north", "bob"):
        Path("requests", f"{name}.request.json").unlink()
    assert run(PROVISION) == 66
    said = capsys.readouterr().err
    assert "site north" in said and "1 more institution" in said
    assert not Path("fed").exists()
    Path("requests/broken.request.json").write_text("{}")
    assert run(PROVISION) == 65
    said = capsys.readouterr().err
    assert "broken.request.json" in said and "site north" in said


def test_a_lab(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    Path("plain.toml").write_text(text, encoding="utf-8")
    found = answer(["provision", "plain.toml", "--lab", "--out", "lab"], capsys)
    assert found["lab"] and found["complete"] and found["address"] == "127.0.0.1:8000"
    address = ["--address", "127.0.0.1:9443"]
    found = answer(["provision", "plan.toml", "--lab", "--out", "lab2", *address], capsys)
    assert found["complete"] and found["address"] == "127.0.0.1:9443"
    assert [member["name"] for member in found["members"]] == ["lab-1", "lab-2"], "not alice"
    assert run(["provision", "plain.toml", "requests", "--lab", "--out", "lab"]) == 0
    said = capsys.readouterr().out
    assert "real sites refuse it" in said and "requests was not read" in said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["provision", "plan.toml", "--out", "fed"], 64),
        ([*PROVISION, "--address", "127.0.0.1:1"], 64),
        (["provision", "plan.toml", "--lab", "--out", "fed", "--address", "here"], 65),
        (["provision", "nothing.toml", "requests", "--out", "fed"], 66),
        (["provision", "plan.toml", "nothing", "--out", "fed"], 66),
        (["provision", "plan.toml", "requests", "--out", "at-north"], 73),
        (["plan", "sign", "nothing", "--key", "alice/member.pem"], 66),
        (["plan", "sign", "requests", "--key", "alice/member.pem"], 66),
        (["consortium", "enroll", "--name", "alice", "--institution", "x", "--out", "alice"], 73),
        (["consortium", "enroll", "--name", "A", "--institution", "x", "--out", "new"], 65),
        (["consortium", "enroll", "--name", "a", "--institution", " ", "--out", "new"], 65),
        (["consortium", "enroll", "--name", "a"], 64),
    ],
)
def test_exit_codes(desk: Path, words: list[str], code: int) -> None:
    assert run(words) == code


def test_a_plan_without_a_federation_needs_one(desk: Path) -> None:
    shutil.copy(TEMPLATE, "plain.toml")
    assert run(["provision", "plain.toml", "requests", "--out", "fed"]) == 65


def test_enrolment_tells_what_is_private(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["consortium", "enroll", "--name", "carol", "--institution", "C", "--out", "carol"]
    made = answer(words, capsys)
    assert made["private"] == ["carol/member.pem"] and made["request"].endswith(".request.json")
    assert Path("carol/member.pem").stat().st_mode & 0o777 == 0o600
    assert made["fingerprint"] in Path(made["request"]).read_text(encoding="utf-8")

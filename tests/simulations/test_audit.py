"""The audit of a run directory: what it finds, what it refuses, and what it says it cannot."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.core.errors import (
    GateFailed,
    InvalidInput,
    LedgerTampered,
    MissingInput,
    NotAvailable,
)
from collegium.core.plan import Plan
from collegium.core.plan_file import write_plan
from collegium.privacy.conformance_insertion import SENSITIVITY
from collegium.privacy.conformance_noise import NOISE, NOISE_GAPS, NOISE_LAW, NOISE_TENSORS
from collegium.privacy.conformance_statistics import CHARGED, STEPS, UPDATE
from collegium.privacy.statement import NO_GUARANTEE
from collegium.simulations.audit import FILE, audit_run, audit_site, require_passed
from collegium.simulations.audit_build import (
    COMMITTED,
    STREAMS,
    UPDATES,
)
from collegium.simulations.mutants import short_plan, short_records
from collegium.simulations.run import simulate
from collegium.simulations.short_run import short_run
from collegium.simulations.workspace import run_identity, save_stage

MakePlan = Callable[..., Plan]


def verdicts(values: dict[str, Any], site: str = "") -> dict[str, str]:
    """The worst verdict by test, over all sites or at one."""
    rank = ("passed", "not exercised", "failed")
    found: dict[str, str] = {}
    for row in values["tests"]:
        if not site or row["site"] == site:
            before = found.get(row["name"], "passed")
            found[row["name"]] = max(before, row["verdict"], key=rank.index)
    return found


def failed(values: dict[str, Any]) -> set[str]:
    """The tests that fail somewhere."""
    return {test for test, verdict in verdicts(values).items() if verdict == "failed"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the correct build; no test changes it."""
    plan, folder = short_plan(1), tmp_path_factory.mktemp("template") / "run"
    short_run(plan, short_records(plan, 1), folder)
    return folder


@pytest.fixture
def run(template: Path, tmp_path: Path) -> Path:
    """A copy of it to break."""
    return shutil.copytree(template, tmp_path / "run")


def test_a_correct_run_passes_every_test(run: Path) -> None:
    values = audit_run(run)
    assert values["passed"]
    assert values["counts"]["failed"] == values["counts"]["not exercised"] == 0
    assert {NOISE, STEPS, CHARGED, UPDATE, SENSITIVITY, UPDATES, STREAMS} <= set(verdicts(values))
    assert {NOISE_TENSORS, NOISE_LAW, NOISE_GAPS, COMMITTED} <= set(verdicts(values))
    assert values["guarantee"] == NO_GUARANTEE
    assert "honest software" in values["attests"]
    assert values["threshold"] == 1e-6 / values["p_values"]
    assert values.pop("membership") is None  # the run has released no model
    assert json.loads((run / FILE).read_text()) == values
    require_passed(values)


def test_the_figures_are_for_the_site_alone_and_hold_no_evidence(run: Path) -> None:
    """audit.json (0600) has statistics that depend on records, but no single draw."""
    audit_run(run)
    assert os.name == "nt" or (run / FILE).stat().st_mode & 0o777 == 0o600
    rows = json.loads((run / FILE).read_text())["tests"]
    assert all(
        set(row) == {"name", "site", "statistic", "p_value", "p_values", "verdict", "note"}
        for row in rows
    )
    assert not (run / FILE).read_text().count("sketch")


def rewrite(path: Path, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
    """Change or drop lines of an evidence file."""
    lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line))


def test_a_missing_step_and_a_missing_update(run: Path) -> None:
    path = run / "sites" / "s1" / "evidence.jsonl"
    kept = path.read_text()
    rewrite(path, lambda v: None if (v["kind"], v["round"], v.get("step")) == ("step", 3, 1) else v)
    assert failed(audit_run(run)) == {STEPS}
    path.write_text(kept)
    rewrite(path, lambda v: None if v["round"] == 3 else v)
    values = audit_run(run)
    assert failed(values) == {STEPS}
    assert "1 updates left without evidence" in {row["note"] for row in values["tests"]}
    path.unlink()
    values = audit_run(run)
    assert STEPS in failed(values)
    assert verdicts(values, "s1")[NOISE] == "not exercised"
    with pytest.raises(GateFailed, match="steps executed"):
        require_passed(values)


def test_a_step_under_another_mechanism_than_the_charged_one(run: Path) -> None:
    def cheaper(line: dict[str, Any]) -> dict[str, Any]:
        if line["kind"] == "begin" and line["round"] == 2:
            line["spec"]["noise_multiplier"] /= 2
        return line

    rewrite(run / "sites" / "s0" / "evidence.jsonl", cheaper)
    assert failed(audit_run(run)) == {CHARGED}


def test_an_update_that_is_too_long_or_of_another_layout(run: Path) -> None:
    payload = run / "updates" / "round-000002" / "s2.payload"
    payload.write_bytes(payload.read_bytes() + bytes(4))
    assert failed(audit_run(run)) == {UPDATES, COMMITTED}
    payload.write_bytes(payload.read_bytes()[:-4])
    header = payload.with_suffix(".header")
    text = header.read_bytes()
    header.write_bytes(text.replace(b'"layout":"sha256:', b'"layout":"sha256:0'))
    assert failed(audit_run(run)) == {UPDATES, COMMITTED}
    header.write_bytes(text.replace(b'{"', b'{"labels":[1],"', 1))
    assert failed(audit_run(run)) == {UPDATES, COMMITTED}
    header.unlink()
    assert failed(audit_run(run)) == {UPDATES, COMMITTED}


def copied_update(run: Path) -> None:
    shutil.copytree(run / "updates" / "round-000001", run / "updates" / "round-000009")


def other_site(run: Path) -> None:
    for path in (run / "updates" / "round-000001").glob("s0.*"):
        path.rename(path.with_stem("unknown"))


def other_bytes(run: Path) -> None:
    path = run / "updates" / "round-000002" / "s1.payload"
    values = np.frombuffer(path.read_bytes(), "<f4") + np.float32(0.25)
    path.write_bytes(values.astype("<f4").tobytes())


def other_header(run: Path) -> None:
    path = run / "updates" / "round-000002" / "s1.header"
    header, _, signature = path.read_bytes().rpartition(b"\n")
    values = json.loads(header) | {"nonce": "other"} | {"attempt": 2}
    path.write_bytes(json.dumps(values).encode() + b"\n" + signature)


@pytest.mark.parametrize("change", [copied_update, other_site, other_bytes, other_header])
def test_an_update_that_no_ledger_was_charged_for(
    run: Path, change: Callable[[Path], None]
) -> None:
    change(run)
    assert COMMITTED in failed(audit_run(run))


def test_an_update_that_the_evidence_is_not_of(run: Path) -> None:
    """The ledger's digest is right, but the site noted another vector last."""

    def other(line: dict[str, Any]) -> dict[str, Any]:
        if line["kind"] == "end" and line["round"] == 2:
            line["payloads"] = dict.fromkeys(line["payloads"], "sha256:0")
        return line

    rewrite(run / "sites" / "s1" / "evidence.jsonl", other)
    values = audit_run(run)
    assert failed(values) == {COMMITTED}
    assert verdicts(values, "s0")[COMMITTED] == "passed"


def test_evidence_of_an_older_version(run: Path) -> None:
    """What it did not note is not exercised; all else is tested."""
    new = {"tensors", "bins", "negative", "zeros", "payloads"}
    for path in (run / "sites").glob("*/evidence.jsonl"):
        rewrite(path, lambda line: {k: v for k, v in line.items() if k not in new})
    values = audit_run(run)
    assert values["passed"]
    found = verdicts(values)
    assert {found[test] for test in (NOISE_TENSORS, NOISE_LAW, NOISE_GAPS)} == {"not exercised"}
    assert found[NOISE] == found[COMMITTED] == "passed"


def test_a_ledger_that_another_key_signed(run: Path) -> None:
    keys = run / "keys" / "private"
    (keys / "s1.pem").write_bytes((keys / "s0.pem").read_bytes())
    with pytest.raises(LedgerTampered):
        audit_run(run)


def test_no_evidence(run: Path) -> None:
    for path in (run / "sites").glob("*/evidence.jsonl"):
        path.unlink()
    with pytest.raises(MissingInput, match="no evidence"):
        audit_run(run)


def test_a_run_of_processes_is_audited_like_a_simulated_one(run: Path) -> None:
    plan = Plan.load(run / "plan.toml")
    identity = run_identity(plan, custom=False, processes=True)
    save_stage(run, "begun", {"identity": identity})
    assert audit_run(run)["passed"]


def test_broken_runs(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        audit_run(tmp_path / "nowhere")
    (run / "sites" / "s0" / "evidence.jsonl").write_text('{"kind": "?"}\n')
    with pytest.raises(InvalidInput, match="not evidence"):
        audit_run(run)
    text = (run / "plan.toml").read_bytes()
    other = write_plan(replace(short_plan(1), consortium="others")).encode()
    (run / "plan.toml").write_bytes(other)
    with pytest.raises(InvalidInput, match="not the plan of this run"):
        audit_run(run)
    (run / "plan.toml").write_bytes(text[:-40])
    with pytest.raises(InvalidInput):
        audit_run(run)


def test_a_ledger_that_is_not_there(run: Path) -> None:
    for path in (run / "ledgers").glob("s1.sqlite*"):
        path.unlink()
    with pytest.raises(InvalidInput, match="ledger of 's1' is missing"):
        audit_run(run)


def test_a_run_without_privacy(make_plan: MakePlan, make_records: Any, tmp_path: Path) -> None:
    plan = make_plan(2, privacy={"enabled": False})
    simulate(plan, sites=make_records(plan), out=tmp_path / "run")
    with pytest.raises(MissingInput, match="without privacy"):
        audit_run(tmp_path / "run")


def test_a_custom_run_says_what_cannot_be_tested(
    make_plan: MakePlan, make_records: Any, tmp_path: Path
) -> None:
    plan = make_plan(3, rounds=4, local_steps=2)
    simulate(plan, sites=make_records(plan), out=tmp_path / "run")
    values = audit_run(tmp_path / "run")
    assert values["passed"]
    assert verdicts(values)[SENSITIVITY] == "not exercised"
    assert values["membership"] is None
    with pytest.raises(NotAvailable, match="canaries cannot be run"):
        audit_run(tmp_path / "run", canaries=50)


def test_a_run_that_was_stopped_and_resumed(
    make_plan: MakePlan, make_records: Any, tmp_path: Path
) -> None:
    """What was begun twice counts once; nothing of the first try is missing or left over."""
    plan = make_plan(3, rounds=5, local_steps=2)

    def stop(release: Any) -> None:
        if release.round == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate(plan, sites=make_records(plan), out=tmp_path / "run", on_round=stop)
    assert audit_run(tmp_path / "run")["passed"]  # an unfinished run can be audited
    simulate(plan, sites=make_records(plan), out=tmp_path / "run", resume=True)
    values = audit_run(tmp_path / "run")
    assert values["passed"]
    row = next(row for row in values["tests"] if row["name"] == STEPS)
    assert row["statistic"].startswith("5 of 5 updates")


def test_capped_batches(tmp_path: Path) -> None:
    base = short_plan(2)
    plan = replace(
        base,
        rounds=replace(base.rounds, count=4, local_steps=2),
        privacy=replace(base.privacy, batch_cap=60, relation="replace-special"),
    )
    short_run(plan, short_records(plan, 2), tmp_path / "run")
    assert audit_run(tmp_path / "run")["passed"]


def test_patients_are_canaries_too(tmp_path: Path) -> None:
    base = short_plan(3)
    plan = replace(base, privacy=replace(base.privacy, unit="patient"))
    records = {
        name: replace(data, train_units=np.arange(len(data.train_y)) // 3, test_units=data.test_y)
        for name, data in short_records(plan, 3).items()
    }
    short_run(plan, records, tmp_path / "run")
    values = audit_run(tmp_path / "run")
    assert values["passed"]
    assert "20 units" in next(
        row["statistic"] for row in values["tests"] if row["name"] == "inclusion by unit"
    )


def test_a_leak_fails_the_audit(run: Path) -> None:
    values = audit_run(run) | {"leakage": {"passed": False}}
    with pytest.raises(GateFailed, match="leak more than the claimed epsilon"):
        require_passed(values)


def test_several_seeds_are_several_runs(run: Path) -> None:
    (run / "seeds" / "7").mkdir(parents=True)
    with pytest.raises(MissingInput, match="name one of them"):
        audit_run(run)


SITE = """
schema = 1
[site]
name = "s0"
mode = "simulation"
[data]
asset = "heart"
reader = "csv"
path = "records.csv"
label = "outcome"
[policy]
max_epsilon = 8.0
delta = 1e-3
[ledger]
path = "own/ledger.sqlite"
"""


@pytest.fixture
def real_site(run: Path, tmp_path: Path) -> Path:
    """A site file whose ledger and evidence lie side by side, as at a real site."""
    folder = tmp_path / "site"
    (folder / "own").mkdir(parents=True)
    (folder / "own" / "ledger.sqlite").write_bytes((run / "ledgers" / "s0.sqlite").read_bytes())
    kept = run / "sites" / "s0" / "evidence.jsonl"
    (folder / "own" / "evidence.jsonl").write_bytes(kept.read_bytes())
    (folder / "site.toml").write_text(SITE)
    return folder / "site.toml"


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file but the index that SQLite keeps beside a ledger that is open."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path: path.read_bytes()
        for path in files
        if path.suffix not in (".sqlite-shm", ".sqlite-wal")
    }


def test_one_site_alone(real_site: Path) -> None:
    before = contents(real_site.parent)
    values = audit_site(real_site)
    assert values["passed"]
    assert values["guarantee"] == NO_GUARANTEE  # mode = "simulation"
    assert verdicts(values)[SENSITIVITY] == "not exercised"
    assert {NOISE, STEPS, CHARGED, UPDATE} <= set(verdicts(values))
    assert contents(real_site.parent) == before  # nothing is written


def test_one_site_whose_noise_is_too_small(real_site: Path) -> None:
    def quieter(line: dict[str, Any]) -> dict[str, Any]:
        if line["kind"] == "step":
            line["squares"] *= 0.81
        return line

    rewrite(real_site.parent / "own" / "evidence.jsonl", quieter)
    assert NOISE in failed(audit_site(real_site))


def test_one_site_whose_evidence_lies_in_its_state_folder(real_site: Path) -> None:
    state = real_site.parent / "state"
    state.mkdir()
    (real_site.parent / "own" / "evidence.jsonl").rename(state / "evidence.jsonl")
    assert audit_site(real_site)["passed"]


def test_one_site_without_evidence(real_site: Path) -> None:
    (real_site.parent / "own" / "evidence.jsonl").unlink()
    with pytest.raises(MissingInput, match="no evidence"):
        audit_site(real_site)

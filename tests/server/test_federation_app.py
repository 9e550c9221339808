"""The ServerApp of a real federation, on the in-process Grid with a provisioned lab."""

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from flwr.app import Context, RecordDict

from collegium.core.errors import Interrupted, InvalidInput, MissingInput, Refused
from collegium.core.messages import Update
from collegium.core.signing import public_from_fingerprint
from collegium.server.coordinator_state import holder_of
from collegium.server.events import EventLog, all_events
from collegium.server.federation_app import this_job
from collegium.server.run_folder import load_stage


def kinds(folder: Path) -> list[str]:
    return [event["kind"] for event in all_events(folder)]


def context_of(job: Any) -> Context:
    return Context(run_id=5, node_id=1, node_config={}, state=RecordDict(), run_config={"job": job})


def test_a_job_runs_to_its_end_and_tells_everything(make_federation: Any) -> None:
    lab = make_federation()
    lab.drive()
    found = load_stage(lab.run, "federation")
    assert found is not None
    assert set(found["heads"]) == {"s0", "s1", "s2"}
    assert (lab.run / "model.safetensors").is_file()
    assert (lab.run / "global.safetensors").is_file()
    told = all_events(lab.run)
    assert told[0]["kind"] == "started" and told[-1]["kind"] == "finished"
    rounds = [event["round"] for event in told if event["kind"] == "round"]
    assert rounds == [1, 2, 3]
    answered = [(e["round"], e["site"]) for e in told if e["kind"] == "answered"]
    assert sorted(answered) == [(r, f"s{n}") for r in (1, 2, 3) for n in range(3)]
    assert {event["site"] for event in told if event["kind"] == "seen"} == {"s0", "s1", "s2"}
    assert holder_of(lab.run) is None


def test_the_heads_are_signed_by_the_sites(make_federation: Any) -> None:
    import base64

    from collegium.core.messages import Sealed

    lab = make_federation()
    lab.drive()
    roster = lab.coordinator().roster
    for name, site in lab.sites.items():
        entry = json.loads((lab.run / "ledgers" / f"{name}.json").read_bytes())
        signed = entry["signed"]
        payload = (lab.run / "updates" / "round-000003" / f"{name}.payload").read_bytes()
        update = Update.open(
            Sealed(
                header=base64.b64decode(signed["header"]),
                signature=bytes.fromhex(signed["signature"]),
                payload=payload,
            ),
            public_from_fingerprint(roster.site(name).public_key),
        )
        assert update.ledger_head == entry["ledger_head"]
        assert entry["ledger_head"] in {e.hash for e in site.ledger.entries()}


def dies_at(write: Any, kind: str, round: int) -> Any:
    """Return a writer of events that ends the process's work at that event, like a kill."""

    def dying(self: Any, what: str, **fields: Any) -> None:
        if what == kind and fields["round"] == round:
            raise KeyboardInterrupt
        write(self, what, **fields)

    return dying


def test_a_run_goes_on_where_it_stopped_and_gives_the_same_model(
    make_federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_federation()
    whole.drive()

    broken = make_federation()
    # the same lab keys, so that the two runs may be compared byte for byte
    shutil.rmtree(broken.home)
    shutil.copytree(whole.home, broken.home)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(EventLog, "write", dies_at(EventLog.write, "round", 2))
        broken.drive()
    assert [e["round"] for e in all_events(broken.run) if e["kind"] == "round"] == [1]
    job = load_stage(broken.run, "job")
    broken.drive(run_id=2)
    assert load_stage(broken.run, "job") == job
    assert [e["round"] for e in all_events(broken.run) if e["kind"] == "round"] == [1, 2, 3]
    first, second = (load_stage(lab.run, "federation") for lab in (whole, broken))
    assert first is not None and second is not None
    assert first["model_sha256"] == second["model_sha256"]
    for site in broken.sites.values():
        assert sum(entry.kind == "reserve" for entry in site.ledger.entries()) == 3


def test_a_finished_job_is_left_alone(make_federation: Any) -> None:
    lab = make_federation()
    lab.drive()
    before = (lab.run / "model.safetensors").stat().st_mtime_ns
    lab.drive(run_id=2)
    assert (lab.run / "model.safetensors").stat().st_mtime_ns == before
    assert kinds(lab.run)[-2:] == ["finished", "finished"]


def test_news_that_a_crash_swallowed_is_told_again(make_federation: Any) -> None:
    lab = make_federation()
    lab.drive()
    (lab.run / "stages" / "federation.json").unlink()
    lines = (lab.run / "events.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["kind"] != "round"]
    (lab.run / "events.jsonl").write_text("\n".join(kept) + "\n")
    lab.drive(run_id=2)
    assert [e["round"] for e in all_events(lab.run) if e["kind"] == "round"] == [1, 2, 3]


def test_a_stop_is_told_with_its_code(make_federation: Any) -> None:
    lab = make_federation()
    job = lab.prepare()
    lab.open_sites()
    (lab.home / "agreement" / "plan.dsse").unlink()
    with pytest.raises(MissingInput):
        lab.drive(job=job)
    last = all_events(lab.run)[-1]
    assert (last["kind"], last["exit_code"]) == ("stopped", 66)
    assert "plan.dsse" in last["what"]


def test_a_plan_that_nobody_signed_is_not_run(make_federation: Any) -> None:
    lab = make_federation()
    job = lab.prepare()
    path = lab.home / "agreement" / "plan.toml"
    path.write_text(path.read_text().replace("epsilon = 3.0", "epsilon = 4.0"))
    with pytest.raises(Refused, match="plan"):
        lab.drive(job=job)
    assert kinds(lab.run) == ["stopped"]
    assert all_events(lab.run)[0]["exit_code"] == 77


def test_a_bug_is_told_without_its_words(make_federation: Any, monkeypatch: Any) -> None:
    lab = make_federation()

    def broken(plan: Any) -> Any:
        raise RuntimeError("canary 4711")

    monkeypatch.setattr("collegium.server.federation_drive.opening", broken)
    with pytest.raises(RuntimeError):
        lab.drive()
    last = all_events(lab.run)[-1]
    assert (last["kind"], last["exit_code"]) == ("stopped", 70)
    assert "canary" not in json.dumps(all_events(lab.run))
    assert "canary" in (lab.run / "log.jsonl").read_text()


def test_a_full_disk_can_be_resumed(make_federation: Any, monkeypatch: Any) -> None:
    lab = make_federation()

    def full(plan: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("collegium.server.federation_drive.opening", full)
    with pytest.raises(OSError):
        lab.drive()
    assert all_events(lab.run)[-1]["exit_code"] == Interrupted.exit_code


def answer(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "https://superlink/v1/runtime/get-nodes")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (sqlite3.OperationalError("database or disk is full"), 75),
        (answer(500), 75),
        (answer(503), 75),
        (answer(401), 75),
        (httpx.ConnectError("refused"), 75),
        (answer(404), 70),
        (sqlite3.ProgrammingError("a bug"), 70),
    ],
)
def test_what_the_world_does_is_resumable_and_a_bug_is_not(
    make_federation: Any, monkeypatch: Any, error: Exception, code: int
) -> None:
    lab = make_federation()

    def fails(plan: Any) -> Any:
        raise error

    monkeypatch.setattr("collegium.server.federation_drive.opening", fails)
    with pytest.raises(type(error)):
        lab.drive()
    assert all_events(lab.run)[-1]["exit_code"] == code


def test_public_records_measure_every_round(make_federation: Any) -> None:
    from collegium.data.public import PublicSet
    from collegium.server.public_file import write_public

    lab = make_federation()
    lab.prepare()
    rng = np.random.default_rng(3)
    x = rng.uniform(-1, 1, (40, 3)).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.int64)
    write_public(lab.run, PublicSet(name="public", origin="public", x=x, y=y))
    lab.drive()
    rounds = [event for event in all_events(lab.run) if event["kind"] == "round"]
    assert all(0 <= event["metrics"]["accuracy"] <= 1 for event in rounds)
    found = load_stage(lab.run, "federation")
    assert found is not None and "accuracy" in found["open_model"]


# --- the run config is only a name --------------------------------------------------------------


def test_a_job_is_found_by_its_name(make_federation: Any, monkeypatch: Any) -> None:
    lab = make_federation()
    job = lab.prepare()
    monkeypatch.setenv("COLLEGIUM_STATE", str(lab.state))
    assert this_job(context_of(job.job)) == job


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "/etc/passwd", "A", "a" * 65, "a.b", 7])
def test_a_job_that_could_be_a_path_is_refused(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLEGIUM_STATE", str(tmp_path))
    with pytest.raises(InvalidInput):
        this_job(context_of(name))


def test_an_unknown_job_and_a_missing_state_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLEGIUM_STATE", str(tmp_path))
    with pytest.raises(MissingInput, match="no job abc"):
        this_job(context_of("abc"))
    monkeypatch.delenv("COLLEGIUM_STATE")
    with pytest.raises(MissingInput, match="COLLEGIUM_STATE"):
        this_job(context_of("abc"))

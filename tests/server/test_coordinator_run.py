"""A run's folder and job: made once, finished once, and left alone then."""

import sqlite3
from typing import Any

import numpy as np
import pytest

from collegium.core.errors import Interrupted, NotAvailable, OutputExists, Refused
from collegium.data.public import PublicSet
from collegium.server.coordinator_run import RunRequest, run_federation
from collegium.server.coordinator_service import PORT, default_port
from collegium.server.coordinator_state import jobs
from collegium.server.public_file import read_public, write_public
from collegium.server.run_folder import load_stage


def ask(lab: Any, **changes: Any) -> Any:
    return run_federation(
        lab.coordinator(),
        RunRequest(out=lab.run, state=lab.state, **changes),
        on_event=lambda _: None,
        on_flower=lambda _: None,
    )


def test_a_job_keeps_its_id_over_every_try(make_federation: Any) -> None:
    lab = make_federation()
    for resume in (False, True, True):
        with pytest.raises(NotAvailable, match="no coordinator runs"):
            ask(lab, resume=resume)
    assert [job.job for job in jobs(lab.state)] == [load_stage(lab.run, "job")["job"]]  # type: ignore[index]


def test_durable_rounds_become_a_result_without_any_coordinator(make_federation: Any) -> None:
    lab = make_federation()
    lab.drive()
    values = ask(lab, resume=True)
    assert values["model_sha256"] == load_stage(lab.run, "federation")["model_sha256"]  # type: ignore[index]
    before = (lab.run / "result.json").stat().st_mtime_ns
    assert ask(lab, resume=True) == values
    assert (lab.run / "result.json").stat().st_mtime_ns == before


def test_the_run_of_another_plan_is_refused(make_federation: Any, make_plan: Any) -> None:
    lab, other = make_federation(), make_federation(make_plan(sites=3, rounds=9))
    lab.drive()
    with pytest.raises(OutputExists, match="another plan"):
        run_federation(
            other.coordinator(),
            RunRequest(out=lab.run, state=lab.state, resume=True),
            on_event=lambda _: None,
            on_flower=lambda _: None,
        )


def test_public_records_are_taken_in_and_private_ones_refused(
    make_federation: Any, tmp_path: Any
) -> None:
    lab = make_federation()
    x, y = np.zeros((4, 3), dtype=np.float32), np.zeros(4, dtype=np.int64)
    path = write_public(tmp_path, PublicSet(name="p", origin="public", x=x, y=y))
    with pytest.raises(NotAvailable):
        ask(lab, public=path)
    found = read_public(lab.run)
    assert found is not None and found.name == "p"
    np.savez(path, x=x, y=y, name=np.array("p"), origin=np.array("private"))
    with pytest.raises(Refused):
        ask(lab, public=path, resume=True)


def public_set(tmp_path: Any, name: str, value: float) -> Any:
    x, y = np.full((4, 3), value, dtype=np.float32), np.zeros(4, dtype=np.int64)
    (tmp_path / name).mkdir()
    return write_public(tmp_path / name, PublicSet(name=name, origin="public", x=x, y=y))


def test_public_records_stay_the_same_for_a_run(make_federation: Any, tmp_path: Any) -> None:
    lab = make_federation()
    one, other = public_set(tmp_path, "a", 0.0), public_set(tmp_path, "b", 1.0)
    with pytest.raises(NotAvailable):
        ask(lab, public=one)
    before = (lab.run / "public.npz").read_bytes()
    with pytest.raises(OutputExists, match="measured on 'a'"):
        ask(lab, public=other, resume=True)
    with pytest.raises(NotAvailable):
        ask(lab, public=one, resume=True)
    assert (lab.run / "public.npz").read_bytes() == before


def test_public_records_come_before_the_first_round(make_federation: Any, tmp_path: Any) -> None:
    lab = make_federation()
    lab.drive()
    (lab.run / "stages" / "federation.json").unlink()
    with pytest.raises(OutputExists, match="no public records"):
        ask(lab, public=public_set(tmp_path, "a", 0.0), resume=True)
    assert read_public(lab.run) is None


@pytest.mark.parametrize("where", ["write_privacy_page", "write_report"])
def test_a_kill_between_result_and_pages_leaves_no_run_without_them(
    make_federation: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    lab = make_federation()
    lab.drive()

    def killed(*_: Any) -> None:
        raise SystemExit

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(f"collegium.server.coordinator_run.{where}", killed)
        ask(lab, resume=True)
    ask(lab, resume=True)
    for name in ("result.json", "privacy.json", "privacy.html", "report.html"):
        assert (lab.run / name).is_file(), name


def test_a_full_disk_under_the_result_is_resumable(
    make_federation: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_federation()
    lab.drive()

    def full(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("collegium.server.coordinator_run.prepare_job", full)
    with pytest.raises(Interrupted, match="disk is full"):
        ask(lab, resume=True)


def test_a_lab_listens_where_its_sites_call_and_others_behind_the_proxy(
    make_federation: Any,
) -> None:
    lab = make_federation(address="127.0.0.1:8123")
    assert default_port(lab.coordinator()) == 8123
    assert PORT != 8000, "the plan's own port is the proxy's"

"""A run's folder and job: made once, finished once, and left alone then."""

from typing import Any

import numpy as np
import pytest

from collegium.core.errors import NotAvailable, OutputExists, Refused
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


def test_a_lab_listens_where_its_sites_call_and_others_behind_the_proxy(
    make_federation: Any,
) -> None:
    lab = make_federation(address="127.0.0.1:8123")
    assert default_port(lab.coordinator()) == 8123
    assert PORT != 8000, "the plan's own port is the proxy's"

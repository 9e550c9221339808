"""kill -9 of ServerApp, SuperLink and SuperExec in one real run: it goes on, and nothing twice."""

import os
import shutil
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from collegium.server.coordinator_run import RunRequest, run_federation
from collegium.server.coordinator_service import Service, keep, serving
from collegium.server.coordinator_state import holder_of
from collegium.server.events import all_events
from collegium.server.run_folder import load_stage

ROUNDS = 6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def kept(coordinator: Any, port: int, said: list[str]) -> Iterator[Service]:
    """A coordinator that is up and kept up."""
    stop = threading.Event()
    with serving(coordinator, state=None, port=port, say=said.append) as service:
        keeping = threading.Thread(target=keep, args=(service, stop), daemon=True)
        keeping.start()
        try:
            yield service
        finally:
            stop.set()
            keeping.join()


class Killer:
    """Kills one process each at its round, once, and remembers when."""

    def __init__(self, service: Service, lab: Any) -> None:
        self.service, self.lab = service, lab
        self.plan = {1: "serverapp", 3: "superlink", 4: "superexec"}
        self.killed: list[tuple[str, int]] = []

    def __call__(self, event: Any) -> None:
        # the first answer of a round: the slow site is at work
        if event["kind"] == "answered" and (victim := self.plan.pop(event["round"], None)):
            pid = self.pid_of(victim)
            os.kill(pid, signal.SIGKILL)
            self.killed.append((victim, pid))

    def pid_of(self, victim: str) -> int:
        if victim == "serverapp":
            holder = holder_of(self.lab.run)
            assert holder is not None
            return holder.pid
        pid = getattr(self.service, victim).pid
        assert pid is not None
        return int(pid)


@pytest.mark.slow
def test_a_run_outlives_each_of_the_coordinators_processes(
    make_federation: Any, make_plan: Any, live_sites: Any
) -> None:
    port = free_port()
    plan = make_plan(sites=2, rounds=ROUNDS)
    quiet = make_federation(plan, address=f"127.0.0.1:{port}")
    quiet.drive()
    lab = make_federation(plan, address=f"127.0.0.1:{port}")
    shutil.rmtree(lab.home)
    shutil.copytree(quiet.home, lab.home)  # the same keys

    said: list[str] = []
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with kept(lab.coordinator(), port, said) as service:
        killer = Killer(service, lab)
        with live_sites(lab, free_port(), slow="s1"):
            values = run_federation(
                lab.coordinator(),
                RunRequest(out=lab.run, state=service.state, supervise=True),
                on_event=killer,
                on_flower=said.append,
            )
    after = {child.pid for child in psutil.Process().children(recursive=True)}
    assert after <= before, "a process was left behind"
    assert [victim for victim, _ in killer.killed] == ["serverapp", "superlink", "superexec"]

    told = all_events(lab.run)
    assert [e["round"] for e in told if e["kind"] == "round"] == list(range(1, ROUNDS + 1))
    starts = [event for event in told if event["kind"] == "started"]
    assert len({event["job"] for event in starts}) == 1
    assert len(starts) >= 3, "a killed ServerApp comes back under a new Flower run"
    for site in lab.sites.values():
        reserves = [entry for entry in site.ledger.entries() if entry.kind == "reserve"]
        assert len(reserves) == ROUNDS, "no round was paid for twice"
    first = load_stage(quiet.run, "federation")
    assert first is not None
    assert values["model_sha256"] == first["model_sha256"]

"""A real federation of processes on this machine: same model, no word too much, nobody left."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from collegium.client.executor import REFUSED_APP
from collegium.core.plan import Plan
from collegium.data.public import PublicSet
from collegium.data.site_data import SiteData
from collegium.server._flwr_link import Control
from collegium.server.coordinator_run import prepare_job
from collegium.server.run_folder import load_stage
from collegium.server.supervise import STAGE
from collegium.simulations.listener import Listener
from collegium.simulations.processes import Lab, make_lab, running
from collegium.simulations.records import Records
from collegium.simulations.run import simulate
from collegium.simulations.up import drive

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="sites and coordinators run on Linux"),
]

CANARY = "canary-7f3a-patient"


def with_canaries(data: SiteData, site: str) -> SiteData:
    """The same records, each of a patient whose name must never leave the site."""
    names = [f"{CANARY}-{site}-{number}" for number in range(len(data.train_y) + len(data.test_y))]
    cut = len(data.train_y)
    return replace(data, train_units=np.array(names[:cut]), test_units=np.array(names[cut:]))


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    make_plan: Callable[..., Plan],
    make_records: Callable[..., dict[str, SiteData]],
) -> Iterator[tuple[Plan, Path, Records, Lab]]:
    """One run of three rounds through SuperLink, SuperNodes and site processes."""
    folder = tmp_path_factory.mktemp("up") / "run"
    folder.mkdir()
    plan = make_plan(2, rounds=3, privacy={"unit": "patient"})
    sites = {name: with_canaries(data, name) for name, data in make_records(plan).items()}
    one = next(iter(sites.values()))
    nothing = PublicSet(name="none", origin="public", x=one.test_x[:0], y=one.test_y[:0])
    records = Records(by_site=sites, test=nothing)
    lab = make_lab(plan, folder, records)
    job = prepare_job(lab.coordinator, folder, lab.coordinator.home.state)
    drive(plan, lab, job.job, folder, Listener())
    yield plan, folder, records, lab


def test_it_gives_the_simulator_s_model(
    world: tuple[Plan, Path, Records, Lab], tmp_path: Path
) -> None:
    plan, folder, records, _ = world
    simulated = simulate(plan, sites=records.by_site, out=tmp_path / "run")
    found = load_stage(folder, STAGE)
    assert found is not None
    assert found["model_sha256"] == simulated.values["model_sha256"]


def test_no_process_is_left(world: tuple[Plan, Path, Records, Lab]) -> None:
    _, folder, _, _ = world
    assert not [p for p in processes_of(folder) if p.pid != os.getpid()]


def test_strings_of_the_records_are_nowhere_but_in_the_site_s_own_records(
    world: tuple[Plan, Path, Records, Lab],
) -> None:
    _, folder, records, _ = world
    found = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink() and CANARY.encode() in path.read_bytes()
    }
    wide = CANARY.encode("utf-32-le")  # how NumPy keeps texts
    held = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.npz")
        if wide in path.read_bytes()
    }
    assert not found
    assert held == {f"sites/{name}/records.npz" for name in records.by_site}


def test_every_round_was_charged_once(world: tuple[Plan, Path, Records, Lab]) -> None:
    plan, folder, _, _ = world
    for site in plan.sites:
        kinds = ledger_kinds(folder, site.name)
        assert kinds.count("reserve") == kinds.count("commit") == plan.rounds.count


EVIL = """
import json, time
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import ServerApp

app = ServerApp()

@app.main()
def main(grid, context):
    while len(nodes := list(grid.get_node_ids())) < 2:
        time.sleep(0.2)
    content = RecordDict({"seal": ConfigRecord({"header": b"", "signature": b""})})
    waiting = set(grid.push_messages(
        [Message(content, dst_node_id=node, message_type="train") for node in nodes]))
    found = []
    while waiting:
        for reply in grid.pull_messages(list(waiting)):
            waiting.discard(reply.metadata.reply_to_message_id)
            found.append(reply.error.reason if reply.has_error() else "answered")
        time.sleep(0.2)
    Path(context.run_config["out"]).write_text(json.dumps(found))
"""
SHADOW = "from pathlib import Path; Path({mark!r}).write_text('code of a bundle ran')"


def bundles(mark: Path, out: Path) -> dict[str, bytes]:
    """What a hostile coordinator may submit in the place of the signed bundle."""
    from flwr.cli.build import build_fab_from_files

    words = """
[project]
name = "collegium-round"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "collegium"
[tool.flwr.app.components]
serverapp = "evil:app"
clientapp = "collegium.client.stock_app:app"
[tool.flwr.app.config]
"""
    files: dict[str, bytes | Path] = {
        "pyproject.toml": f'{words}out = "{out}"\n'.encode(),
        "evil.py": EVIL.encode(),
        "README.md": b"a",
    }
    shadow: dict[str, bytes | Path] = {
        "collegium/__init__.py": SHADOW.format(mark=str(mark)).encode(),
        "collegium/client/__init__.py": b"",
        "collegium/client/stock_app.py": SHADOW.format(mark=str(mark)).encode(),
    }
    return {
        "another byte": build_fab_from_files(files)[0],
        "its own collegium": build_fab_from_files({**files, **shadow})[0],
    }


def test_an_app_bundle_that_nobody_signed_is_refused(
    world: tuple[Plan, Path, Records, Lab], tmp_path: Path
) -> None:
    """Through the real SuperLink and SuperNodes: no answer, no charge, none of its code runs."""
    plan, folder, _, lab = world
    before = [ledger_kinds(folder, site.name) for site in plan.sites]
    mark, out, ca = tmp_path / "mark", tmp_path / "found.json", lab.coordinator.home.ca
    with running(lab, say=lambda _: None) as up, Control(up.service.address, ca) as control:
        for name, bundle in bundles(mark, out).items():
            out.unlink(missing_ok=True)
            control.submit(bundle, {})
            until = time.monotonic() + 120
            while not out.is_file() and time.monotonic() < until:
                up.tick()
                time.sleep(0.1)
            assert json.loads(out.read_text()) == [REFUSED_APP] * 2, name
    assert not mark.exists()
    assert [ledger_kinds(folder, site.name) for site in plan.sites] == before


def ledger_kinds(folder: Path, site: str) -> list[str]:
    """The kinds of all entries of a site's ledger."""
    from collegium.privacy.ledger_store import open_readonly, read_rows

    with open_readonly(folder / "ledgers" / f"{site}.sqlite") as connection:
        return [json.loads(body)["kind"] for _, _, body, _, _ in read_rows(connection)]


def processes_of(folder: Path) -> list[psutil.Process]:
    """Every process that was started in or with something of this folder."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            if str(folder) in words or str(folder) in process.cwd():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_ctrl_c_ends_everything_and_the_run_goes_on(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "collegium", "init", str(tmp_path / "p")],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    words = [sys.executable, "-m", "collegium", "up", str(tmp_path / "p" / "plan.toml")]
    words += ["--rounds", "40", "--out", str(tmp_path / "run")]
    child = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that starts tests in the background lets all they start ignore SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    until = time.monotonic() + 150
    events = tmp_path / "run" / "events.jsonl"
    while not (events.is_file() and '"round"' in events.read_text()):
        assert time.monotonic() < until and child.poll() is None, child.communicate()
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    try:
        _, said = child.communicate(timeout=180)
    finally:
        child.kill()
    assert child.returncode == 75
    assert "--resume" in said and "Traceback" not in said
    assert not processes_of(tmp_path / "run")

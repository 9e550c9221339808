"""A real (not a lab) federation across network namespaces, and its link cut for 25 s. Linux, root.

Follows docs/consortium.md, coordinator.md and site.md with the installed commands: members and
sites enrol, the coordinator provisions, members sign, sites check, approve and start; nginx is
the only door. Each site is in a namespace of its own. Then one site's link goes down in mid-run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from collegium.core.plan import Evaluation, Plan
from collegium.core.plan_federation import Federation
from collegium.core.plan_file import write_plan
from collegium.privacy.ledger_store import open_readonly, read_rows
from collegium.server.events import EventReader
from collegium.simulations.consortium import split_records

HERE = Path(__file__).resolve().parent
HUB, BRIDGE, DOOR = "cghub", "cgbr0", "10.77.0.1:8000"
SITES = ("north", "south")
MEMBERS = (("alice", "Hospital A"), ("bert", "Hospital B"))
CUT_S, RESUME_S = 25.0, 90.0


def collegium(*words: str, **options: Any) -> str:
    """Run one command to its end; return what it prints."""
    line = [sys.executable, "-m", "collegium", *words]
    done = subprocess.run(line, check=False, capture_output=True, text=True, **options)
    if done.returncode:
        said = f"{done.stderr}{done.stdout}"
        raise RuntimeError(f"collegium {' '.join(words)}: {done.returncode}\n{said}")
    return done.stdout


def agreed(folder: Path, rounds: int) -> Path:
    """Enrol, provision, sign, provision again; return the coordinator's folder."""
    requests, out = folder / "requests", folder / "federation"
    requests.mkdir()
    plan_path = folder / "plan.toml"
    plan_path.write_text(write_plan(_plan(rounds)), encoding="utf-8")
    for name, institution in MEMBERS:
        words = ["consortium", "enroll", "--name", name, "--institution", institution]
        collegium(*words, "--out", str(folder / "members" / name))
    for name in SITES:
        words = ["site", "enroll", "--name", name, "--institution", f"{name} hospital"]
        collegium(*words, "--out", str(folder / "sites" / name / "keys"))
    for path in folder.glob("*/*/**/*.request.json"):
        shutil.copy2(path, requests)
    provision = ["provision", str(plan_path), str(requests), "--out", str(out)]
    collegium(*provision)
    for name, _ in MEMBERS:
        key = folder / "members" / name / "member.pem"
        collegium("plan", "sign", str(out / "agreement"), "--key", str(key), "--yes")
    collegium(*provision)
    return out


def installed_site(folder: Path, federation: Path, name: str, members: list[str]) -> Path:
    """Install a kit beside a site's keys and records, check it, approve it; return site.toml."""
    home = folder / "sites" / name
    shutil.copytree(federation / "kits" / name, home / "kit")
    plan = Plan.load(home / "kit" / "plan.toml")
    _write_csv(home / "records.csv", plan, name)
    pins = ", ".join(f'"{pin}"' for pin in members)
    privacy, steps = plan.privacy, plan.rounds.count * plan.rounds.local_steps
    (home / "site.toml").write_text(
        f"""schema = 1
[site]
name = "{name}"
[data]
asset = "biopsies-{name}"
reader = "csv"
path = "records.csv"
label = "diagnosis"
test_share = 0.2
[policy]
max_epsilon = {privacy.epsilon}
delta = {privacy.delta}
max_steps = {steps}
max_sampling_rate = {privacy.sampling_rate}
max_clip_norm = {privacy.clip_norm}
models = ["{plan.model.name}"]
signers = [{pins}]
signatures = 2
min_sites = 2
metrics = ["accuracy"]
[ledger]
path = "ledger/biopsies.sqlite"
anchor = "anchor/biopsies.anchor"
[federation]
kit = "kit"
""",
        encoding="utf-8",
    )
    collegium("site", "approve", "site.toml", cwd=home)
    return home / "site.toml"


def _plan(rounds: int) -> Plan:
    plan = Plan.load(HERE.parent / "simulations" / "plans" / "breast-cancer.toml")
    return replace(
        plan,
        consortium="two-hospitals",
        sites=tuple(site for site in plan.sites if site.name in SITES),
        rounds=replace(plan.rounds, count=rounds, deadline_s=300.0),
        evaluation=Evaluation(origin="private"),
        federation=Federation(address=DOOR, coordinator="University X", signatures=2),
        simulation=None,
    )


def _write_csv(path: Path, plan: Plan, site: str) -> None:
    shipped = Plan.load(HERE.parent / "simulations" / "plans" / "breast-cancer.toml")
    data = split_records(shipped).by_site[site]
    x, y = np.concatenate([data.train_x, data.test_x]), np.concatenate([data.train_y, data.test_y])
    lines = [",".join([*plan.model.bounds, "diagnosis"])]
    for row, label in zip(x, y, strict=True):
        lines.append(",".join([*(repr(float(v)) for v in row), plan.model.classes[label]]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@contextmanager
def namespaces() -> Iterator[None]:
    """A bridge in a hub, and one namespace per site; all of it is gone on leaving."""
    _ip_quiet("netns", "del", HUB)
    try:
        _ip("netns", "add", HUB)
        _ip("-n", HUB, "link", "set", "lo", "up")
        _ip("-n", HUB, "link", "add", BRIDGE, "type", "bridge")
        _ip("-n", HUB, "addr", "add", "10.77.0.1/24", "dev", BRIDGE)
        _ip("-n", HUB, "link", "set", BRIDGE, "up")
        for number, site in enumerate(SITES):
            _ip_quiet("netns", "del", f"cg{site}")
            _ip("netns", "add", f"cg{site}")
            _ip("link", "add", f"e{number}", "netns", f"cg{site}", "type", "veth", "peer",
                "name", f"h{number}", "netns", HUB)  # fmt: skip
            _ip("-n", HUB, "link", "set", f"h{number}", "master", BRIDGE)
            _ip("-n", HUB, "link", "set", f"h{number}", "up")
            _ip("-n", f"cg{site}", "addr", "add", f"10.77.0.{10 + number}/24", "dev", f"e{number}")
            _ip("-n", f"cg{site}", "link", "set", f"e{number}", "up")
            _ip("-n", f"cg{site}", "link", "set", "lo", "up")
        yield
    finally:
        for name in (HUB, *(f"cg{site}" for site in SITES)):
            _ip_quiet("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def _ip_quiet(*words: str) -> None:
    subprocess.run(["ip", *words], check=False, capture_output=True)


@contextmanager
def process(namespace: str, words: list[str], log: Path, cwd: Path | None = None) -> Iterator[Any]:
    """A process in a namespace, asked to end on leaving."""
    with log.open("ab") as stream:
        child = subprocess.Popen(
            ["ip", "netns", "exec", namespace, *words],
            stdout=stream, stderr=stream, cwd=cwd, start_new_session=True,
        )  # fmt: skip
    try:
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)


def door(federation: Path, folder: Path, port: int) -> list[str]:
    """Write nginx's configuration as docs/coordinator.md does; return the command."""
    run = folder / "nginx"
    run.mkdir()
    text = (HERE.parent / "deploy" / "coordinator" / "nginx.conf").read_text(encoding="utf-8")
    for word, value in (("LISTEN", DOOR), ("PORT", port), ("DIR", federation), ("RUN", run)):
        text = text.replace(f"@{word}@", str(value))
    path = folder / "nginx.conf"
    path.write_text(text, encoding="utf-8")
    return ["nginx", "-c", str(path), "-g", "daemon off;"]


def measure(folder: Path, rounds: int) -> dict[str, Any]:
    """Run the federation with its link cut once; return what must hold."""
    federation = agreed(folder, rounds)
    pins = [
        json.loads(path.read_text())["public_key"]
        for path in sorted(folder.glob("members/*/*.request.json"))
    ]
    files = {name: installed_site(folder, federation, name, pins) for name in SITES}
    run, me, port = folder / "run", [sys.executable, "-m", "collegium"], 9100
    with ExitStack() as stack:
        stack.enter_context(namespaces())
        enter = stack.enter_context
        start = [*me, "coordinator", "start", str(federation), "--port", str(port)]
        enter(process(HUB, start, folder / "coordinator.log"))
        enter(process(HUB, door(federation, folder, port), folder / "nginx.log"))
        for name, file in files.items():
            site = [*me, "site", "start", file.name]
            enter(process(f"cg{name}", site, folder / f"{name}.log", cwd=file.parent))
        _wait_for(folder / "coordinator.log", "registered")
        began = time.monotonic()
        drive = [*me, "coordinator", "run", str(federation), "--out", str(run), "--supervise"]
        driver = enter(process(HUB, drive, folder / "run.log"))
        cut = _cut_once(driver, run, rounds)
        code = driver.wait(timeout=300)
        seconds = time.monotonic() - began
    result = json.loads((run / "result.json").read_bytes()) if code == 0 else None
    return {
        "exit_code": code,
        "seconds": seconds,
        "rounds": rounds,
        **cut,
        "reserves": {name: _reserves(file.parent / "ledger") for name, file in files.items()},
        "simulated": result and result["simulated"],
        "epsilon": result and result["epsilon_max"],
        "noised_accuracy": result and result["evaluation"]["accuracy"],
        "left_behind": len(_left(folder)),
    }


def _cut_once(driver: Any, run: Path, rounds: int) -> dict[str, Any]:
    reader, done, down_at, up_at, back_s = EventReader(run), 0, 0.0, 0.0, None
    seen: list[int] = []
    while driver.poll() is None:
        for event in reader.new():
            if event["kind"] == "round":
                seen.append(int(event["round"]))
                if up_at and back_s is None:
                    back_s = time.monotonic() - up_at
            if event["kind"] == "invited" and int(event["round"]) >= rounds // 3 and not down_at:
                _ip("-n", HUB, "link", "set", "h0", "down")
                down_at, done = time.monotonic(), len(seen)
        if down_at and not up_at and time.monotonic() - down_at >= CUT_S:
            _ip("-n", HUB, "link", "set", "h0", "up")
            up_at = time.monotonic()
        time.sleep(0.05)
    return {
        "durable_before_the_cut": done,
        "resumed_s": back_s,
        "rounds_in_order": seen == list(range(1, rounds + 1)),
    }


def _wait_for(log: Path, word: str) -> None:
    for _ in range(1200):
        if log.is_file() and word in log.read_text(encoding="utf-8", errors="replace"):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{log.name} never said '{word}'")


def _reserves(ledger: Path) -> int:
    (path,) = ledger.glob("*.sqlite")
    with open_readonly(path) as connection:
        kinds = [json.loads(body)["kind"] for _, _, body, _, _ in read_rows(connection)]
    return kinds.count("reserve")


def _left(folder: Path) -> list[int]:
    """Return what still runs 5 s after everything was told to end."""
    until = time.monotonic() + 5
    while (found := _mine(folder)) and time.monotonic() < until:
        time.sleep(0.1)
    return found


def _mine(folder: Path) -> list[int]:
    found: list[int] = []
    for one in psutil.process_iter():
        try:
            if one.pid != os.getpid() and str(folder) in " ".join([*one.cmdline(), one.cwd()]):
                found.append(one.pid)
        except psutil.Error:
            continue
    return found


def main() -> None:
    """Parse, run, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if os.geteuid() != 0 or shutil.which("nginx") is None:
        parser.error("needs root (network namespaces) and nginx")
    folder = (args.keep or Path(tempfile.mkdtemp(prefix="bench-link-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    found = measure(folder, args.rounds)
    wanted = args.rounds + 1  # the private evaluation is one more reserve
    checks = {
        "it did not finish": found["exit_code"] == 0,
        "rounds lost or repeated": found["rounds_in_order"],
        "spent twice": set(found["reserves"].values()) == {wanted},
        "not back in time": (found["resumed_s"] or 1e9) <= RESUME_S,
        "processes left": found["left_behind"] == 0,
        "noise was seeded": found["simulated"] is False,
    }
    found["breaks"] = [what for what, holds in checks.items() if not holds]
    if args.keep is None:
        shutil.rmtree(folder)
    print(json.dumps(found, indent=1) if args.json else found)
    sys.exit(bool(found["breaks"]))


if __name__ == "__main__":
    main()

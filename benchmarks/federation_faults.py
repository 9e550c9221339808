"""Kill -9 and cut links in a real federation of processes, and check what must still hold.

One federation per target (ServerApp, SuperLink, SuperNode, site process), each killed at five
moments of its run. It passes when the run finishes with the model of an undisturbed one, every
kill is followed by a durable round within 90 s, no ledger holds more reserves than rounds, no
round is lost or run twice, and no process is left.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from collegium.privacy.ledger_store import open_readonly, read_rows
from collegium.server.events import EventReader

ROUNDS = 12
MOMENTS = ("started", "invited", "answered", "round", "last")
"""The ServerApp has begun; a round was just sent; the first site answered; a round is durable;
the last round is durable and the sites are asked for their reports."""
TARGETS = ("serverapp", "superlink", "supernode", "site")
RESUME_S = 90.0


@dataclass(slots=True, kw_only=True)
class Kill:
    """One kill: what, when in the run, and how long until the next round was durable."""

    target: str
    moment: str
    round: int
    at: float
    back_s: float | None = None


@dataclass(slots=True, kw_only=True)
class Story:
    """What is seen of one federation."""

    kills: list[Kill] = field(default_factory=list[Kill])
    rounds: list[int] = field(default_factory=list[int])


def run(plan: Path, out: Path, target: str | None) -> dict[str, Any]:
    """Run one federation, killing ``target`` at every moment; return what must hold."""
    words = [sys.executable, "-m", "collegium", "up", str(plan), "--rounds", str(ROUNDS)]
    log = out.with_suffix(".log").open("wb")
    began = time.monotonic()
    process = subprocess.Popen(
        [*words, "--out", str(out), "--verbose"], stdout=log, stderr=log, start_new_session=True
    )
    seen: set[int] = set()
    story = Story()
    try:
        _watch(process, out, target, story, seen)
        code = process.wait(timeout=300)
    finally:
        _end(process)
    left = [pid for pid in seen if psutil.pid_exists(pid) and not _is_zombie(pid)]
    return {
        "target": target,
        "exit_code": code,
        "seconds": time.monotonic() - began,
        "model_sha256": _model(out),
        "kills": [
            {"moment": k.moment, "round": k.round, "resumed_s": k.back_s} for k in story.kills
        ],
        "rounds_in_order": story.rounds == list(range(1, ROUNDS + 1)),
        "reserves": {p.stem: _reserves(p) for p in sorted((out / "ledgers").glob("*.sqlite"))},
        "left_behind": len(left),
    }


def _watch(
    process: subprocess.Popen[bytes], out: Path, target: str | None, story: Story, seen: set[int]
) -> None:
    """Follow the events until the driver ends; kill when a moment of the plan has come."""
    due = dict(zip(MOMENTS, (1, 3, 5, 7, ROUNDS), strict=True))
    for event in _events(process, out, seen):
        kind, number = event["kind"], int(event.get("round", 0))
        if kind == "round":
            story.rounds.append(number)
            for kill in story.kills:
                if kill.back_s is None:
                    kill.back_s = time.time() - kill.at
        if kind == "finished":
            for kill in story.kills:
                kill.back_s = kill.back_s if kill.back_s is not None else time.time() - kill.at
        moment = "last" if (kind, number) == ("round", ROUNDS) else kind
        if target is None or moment not in due:
            continue
        if moment != "started" and number < due[moment]:
            continue
        del due[moment]
        if _kill(process.pid, target):
            story.kills.append(Kill(target=target, moment=moment, round=number, at=time.time()))


def _events(
    process: subprocess.Popen[bytes], out: Path, seen: set[int]
) -> Iterator[dict[str, Any]]:
    reader = EventReader(out)
    while True:
        over = process.poll() is not None
        yield from reader.new()
        if over:
            return
        seen.update(child.pid for child in _descendants(process.pid))
        time.sleep(0.05)


def _kill(driver: int, target: str) -> bool:
    """Kill the target's newest process; a site or SuperNode is that of the first site."""
    marks = {
        "serverapp": "flwr-serverapp",
        "superlink": "flower-superlink",
        "supernode": "collegium.client.supernode",
        "site": "site start",
    }
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for process in _descendants(driver):
            try:
                if marks[target] in " ".join(process.cmdline()):
                    process.send_signal(signal.SIGKILL)
                    return True
            except psutil.Error:
                continue
        time.sleep(0.05)
    return False


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _is_zombie(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        for child in _descendants(process.pid):
            child.kill()
        process.kill()


def _model(out: Path) -> str | None:
    path = out / "result.json"
    return json.loads(path.read_bytes())["model_sha256"] if path.is_file() else None


def _reserves(ledger: Path) -> int:
    with open_readonly(ledger) as connection:
        return sum(
            json.loads(body)["kind"] == "reserve" for _, _, body, _, _ in read_rows(connection)
        )


def judged(found: dict[str, Any], clean: dict[str, Any]) -> list[str]:
    """Return what does not hold of a disturbed run."""
    late = [
        kill for kill in found["kills"] if kill["resumed_s"] is None or kill["resumed_s"] > RESUME_S
    ]
    checks = {
        "it did not finish": found["exit_code"] == clean["exit_code"],
        "another model": found["model_sha256"] == clean["model_sha256"],
        "rounds lost or repeated": found["rounds_in_order"],
        "spent twice": found["reserves"] == clean["reserves"],
        "processes left": found["left_behind"] == 0,
        f"not back within {RESUME_S:g} s": not late,
        "a moment was missed": len(found["kills"]) == len(MOMENTS),
    }
    return [what for what, holds in checks.items() if not holds]


def main() -> None:
    """Parse, run, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", nargs="*", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--keep", type=Path, help="Keep the run folders here.")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp(prefix="bench-faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    plan = _plan(folder)
    clean = run(plan, folder / "clean", None)
    print(f"undisturbed: {clean['seconds']:.0f} s", file=sys.stderr)
    runs: list[dict[str, Any]] = []
    for target in args.targets:
        found = run(plan, folder / target, target)
        found["breaks"] = judged(found, clean)
        runs.append(found)
        print(f"{target}: {found['breaks'] or 'holds'} {found['kills']}", file=sys.stderr)
    if args.keep is None:
        shutil.rmtree(folder)
    if args.json:
        print(
            json.dumps(
                {"schema": 1, "cores": os.cpu_count(), "clean": clean, "runs": runs}, indent=1
            )
        )
    for found in [] if args.json else runs:
        worst = max((kill["resumed_s"] or float("inf") for kill in found["kills"]), default=0)
        print(
            f"{found['target']:10} {len(found['kills'])} kills, back after at most {worst:5.1f} s,"
            f" {', '.join(found['breaks']) or 'all holds'}"
        )
    sys.exit(any(found["breaks"] for found in runs))


def _plan(folder: Path) -> Path:
    """Return the plan of ``collegium init``, without the baselines, which nothing here needs."""
    words = [sys.executable, "-m", "collegium", "init", str(folder / "plan")]
    if not (folder / "plan").exists():
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    path = folder / "plan" / "plan.toml"
    text = path.read_text(encoding="utf-8").replace("baselines = true", "baselines = false")
    path.write_text(text, encoding="utf-8")
    return path


if __name__ == "__main__":
    main()

"""``kill -9`` of ``collegium simulate`` at random moments, then ``--resume``: the same run?"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from fresh import end_all

ATTEMPTS = 3  # a run on a busy machine may end before its kill: it is then begun again
LIMIT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """``collegium simulate`` with a plan and the flags that every run of a measurement has."""

    plan: Path
    words: tuple[str, ...]

    def start(self, out: Path, *, resume: bool = False) -> subprocess.Popen[bytes]:
        """Start it; what it says goes to a log beside ``out``."""
        command = [sys.executable, "-m", "collegium", "simulate", str(self.plan)]
        command += ["--out", str(out), "--json", *self.words, *(["--resume"] if resume else [])]
        with out.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=log, stdin=subprocess.DEVNULL
            )


def measure(command: Command, *, count: int, seed: int, keep: Path | None = None) -> dict[str, Any]:
    """Return how ``count`` killed and resumed runs compare with the undisturbed one.

    One moment falls into each of ``count`` equal parts of the undisturbed run's wall time.
    Folders of runs that differ are moved to ``keep``. Raises ``RuntimeError`` when the
    undisturbed run has no result.
    """
    scratch = Path(tempfile.mkdtemp(prefix="collegium-resume-"))
    try:
        began = time.monotonic()
        expected = _finish(command.start(scratch / "undisturbed"), scratch / "undisturbed")
        seconds = time.monotonic() - began
        if expected.get("model_sha256") is None:
            raise RuntimeError((scratch / "undisturbed.log").read_text(errors="replace"))
        chance = random.Random(seed)
        trials: list[dict[str, Any]] = []
        for number in range(count):
            part = (number / count, (number + 1) / count)
            out = scratch / f"run-{number}"
            trials.append(_trial(command, out, part, chance, seconds=seconds, expected=expected))
            _say(trials[-1], number + 1, count)
            _tidy(out, None if trials[-1]["same"] else keep)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return {
        "schema": 1,
        "count": count,
        "seed": seed,
        "words": list(command.words),
        "undisturbed_seconds": seconds,
        "undisturbed": expected,
        "same": sum(found["same"] for found in trials),
        "killed_in": dict(Counter(found["killed_in"] for found in trials)),
        "trials": trials,
    }


def outcome(out: Path) -> dict[str, Any]:
    """Return what must not depend on a kill; nothing when the run has no result."""
    path = out / "result.json"
    if not path.is_file():
        return {}
    result: Mapping[str, Any] = json.loads(path.read_bytes())
    return {
        "model_sha256": result["model_sha256"],
        "epsilon_by_site": {site["name"]: site["epsilon"] for site in result["sites"]},
        "epsilon_total_by_site": {site["name"]: site["epsilon_total"] for site in result["sites"]},
        "rounds": [
            {key: one[key] for key in ("model_sha256", "epsilon", "sites", "refused", "late")}
            for one in result["history"]
        ],
    }


def _trial(
    command: Command,
    out: Path,
    part: tuple[float, float],
    chance: random.Random,
    *,
    seconds: float,
    expected: Mapping[str, Any],
) -> dict[str, Any]:
    """Kill one run in its part of ``seconds``, resume it to the end, and compare.

    ``part`` is where it begins and ends, as shares of the whole.
    """
    moment, ended = 0.0, None
    for _ in range(ATTEMPTS):
        shutil.rmtree(out, ignore_errors=True)
        began, moment = time.monotonic(), seconds * chance.uniform(*part)
        if (ended := _kill_after(command.start(out), moment)) is None:
            break
        seconds = time.monotonic() - began  # the machine has become faster: aim anew
    where = _stood(out, out.with_suffix(".look"))
    stood = where if ended is None else f"not killed: it ended by itself with {ended}"
    found = _finish(command.start(out, resume=True), out)
    differs = sorted(key for key in expected if found.get(key) != expected[key])
    return {
        "moment_s": moment,
        "killed_in": stood,
        "exit_code": found["exit_code"],
        "same": ended is None and not differs,
        "differs": differs,
    }


def _kill_after(process: subprocess.Popen[bytes], moment_s: float) -> int | None:
    """Send SIGKILL after ``moment_s`` seconds; return the exit code of a run that ended before.

    Its children get no signal of their own until it is dead, as with a real ``kill -9``.
    """
    try:
        return process.wait(moment_s)
    except subprocess.TimeoutExpired:
        children = _children(process.pid)
        process.kill()
        process.wait()
        end_all(children)
        return None


def _finish(process: subprocess.Popen[bytes], out: Path) -> dict[str, Any]:
    """Wait for a run's end and return its outcome and exit code; end it when it takes too long."""
    try:
        code = process.wait(LIMIT_S)
        return {**outcome(out), "exit_code": code}
    finally:
        if process.poll() is None:
            children = _children(process.pid)
            process.kill()
            process.wait()
            end_all(children)


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _stood(out: Path, look: Path) -> str:
    """Return how far a killed run was, from a copy: a look must not repair anything."""
    if (out / "result.json").is_file():
        return "report"
    stages = [name for name in ("baselines", "edge") if (out / "stages" / f"{name}.json").is_file()]
    if stages:
        return f"after {' and '.join(stages)}"
    if not (out / "rounds").is_dir():
        return "before the rounds"
    shutil.rmtree(look, ignore_errors=True)
    shutil.copytree(out / "rounds", look)
    try:
        with sqlite3.connect(look / "rounds.sqlite") as db:
            (durable,) = db.execute("SELECT count(*) FROM rounds").fetchone()
    except sqlite3.Error:
        durable = 0
    finished = (out / "model.safetensors").is_file()
    return "after the rounds" if finished else f"round {durable + 1}"


def _tidy(out: Path, keep: Path | None) -> None:
    """Remove a run's folder and log, or move them where a human can look."""
    for path in (out, out.with_suffix(".log")):
        if keep is not None and path.exists():
            keep.mkdir(parents=True, exist_ok=True)
            shutil.move(path, keep / path.name)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _say(found: Mapping[str, Any], number: int, count: int) -> None:
    verdict = "the same" if found["same"] else f"NOT the same ({', '.join(found['differs'])})"
    where = f"killed at {found['moment_s']:.2f} s, {found['killed_in']}"
    print(f"{number} of {count}: {where}: {verdict}", file=sys.stderr)


def main() -> None:
    """Parse, measure, print; exit 1 when a run was not the same."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plan", type=Path, help="default: the plan of `collegium init`")
    parser.add_argument("--count", type=int, default=20, metavar="N", help="runs to kill")
    parser.add_argument("--rounds", type=int, help="rounds, in place of the plan's")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where runs that differ go")
    asked = parser.parse_args()
    words = ("--rounds", str(asked.rounds)) if asked.rounds else ()
    with tempfile.TemporaryDirectory(prefix="collegium-plan-") as folder:
        command = Command(plan=asked.plan or _own_plan(Path(folder)), words=words)
        found = measure(command, count=asked.count, seed=asked.seed, keep=asked.keep)
    if asked.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{found['same']} of {found['count']} the same; killed in {found['killed_in']}")
    sys.exit(0 if found["same"] == found["count"] else 1)


def _own_plan(folder: Path) -> Path:
    """Return the plan that ``collegium init`` writes."""
    command = [sys.executable, "-m", "collegium", "init", str(folder / "new")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "new" / "plan.toml"


if __name__ == "__main__":
    main()

"""``kill -9`` of a device's pull and rollback: what runs is the old version or the new, no mix."""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pull_faults_world import CASES, Case, World, make_world

from collegium.edge.device import DeviceError, Home
from collegium.edge.device.store import State, Store

CHANGES = frozenset(
    {"os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate", "shutil.rmtree", "os.link"}
)
"""Audit events that change a file system; opening a file to write is the other one."""
MOST_STEPS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one killed process left: '' or what is wrong, and whether it had finished before."""

    case: str
    fault: str
    finished: bool
    left: str


def at_every_step(world: World, case: Case) -> Iterator[Seen]:
    """Kill before the 1st, 2nd, 3rd ... change of the disk, until one run gets through."""
    for step in range(1, MOST_STEPS):
        home = world.fresh(case)
        finished = in_child(functools.partial(_armed, world, case, home, step)) == 0
        yield _seen(world, case, home, finished=finished)
        if finished:
            return
    raise RuntimeError(f"{case.name} takes more than {MOST_STEPS} steps")


def at_random(world: World, cases: tuple[Case, ...], count: int, seed: int) -> Iterator[Seen]:
    """Kill at random moments of runs of random cases."""
    chance = random.Random(seed)
    usual = {case.name: _seconds(world, case) for case in cases}
    for _ in range(count):
        case = chance.choice(cases)
        home = world.fresh(case)
        pid = _fork(lambda case=case, home=home: act(world, case, home))
        time.sleep(chance.uniform(0.0, 1.1 * usual[case.name]))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        yield _seen(world, case, home, finished=not os.WIFSIGNALED(status))


def act(world: World, case: Case, home: Path) -> None:
    """Do what the case does, in this process."""
    if case.verb == "rollback":
        Home(home).rollback()
    else:
        Home(home).pull()


def _armed(world: World, case: Case, home: Path, step: int) -> None:
    """Act, and kill this process before its ``step``-th change of the disk."""
    left = step

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, words: tuple[Any, ...]) -> None:
        writes = event == "open" and words[2] is not None and words[2] & (os.O_WRONLY | os.O_RDWR)
        if writes or event in CHANGES:
            count()

    real = os.fsync

    def fsync(descriptor: int) -> None:
        count()
        real(descriptor)

    sys.addaudithook(hook)
    os.fsync = fsync
    act(world, case, home)


def _seen(world: World, case: Case, home: Path, *, finished: bool) -> Seen:
    """Look at what is left, then let the next pull complete it; both in processes of their own."""
    state = Store(home).state()
    left = "new" if _triple(state) == case.after else "old"
    fault = ""
    if _triple(state) not in (case.before, case.after):
        fault = f"a mix: {_triple(state)}"
    elif in_child(lambda: _check_runs(world, home, case.refusal)):
        fault = "what the state names does not run"
    elif in_child(lambda: _complete(world, case, home)):
        fault = "the next one did not complete it"
    shutil.rmtree(home)
    return Seen(case=case.name, fault=fault, finished=finished, left=left)


def _triple(state: State) -> tuple[int | None, int | None, int]:
    current, previous = state.current, state.previous
    return (current and current.version, previous and previous.version, state.floor)


def _check_runs(world: World, home: Path, refusal: str = "") -> None:
    """Raise unless the version that the state names answers, or refuses as it may."""
    current = Store(home).state().current
    if current is None:
        return
    try:
        answer = world.answer(Home(home))
    except DeviceError as error:
        if error.code == refusal:
            return
        raise
    if answer != current.version:
        raise RuntimeError("another version answers than the state names")


def _complete(world: World, case: Case, home: Path) -> None:
    """Do it again if it was not done; then nothing may lie around."""
    store = Store(home)
    if case.verb == "pull" or _triple(store.state()) != case.after:
        act(world, case, home)
    if case.verb == "rollback":
        Home(home).pull()
    state = store.state()
    named = {each.folder for each in (state.current, state.previous) if each}
    found = {entry.name for entry in store.bundles.iterdir()}
    waiting = list(store.incoming.iterdir()) if store.incoming.is_dir() else []
    if _triple(state) != case.after or found != named or waiting:
        raise RuntimeError(f"{_triple(state)}, {found ^ named}, {waiting}")
    _check_runs(world, home)


def _seconds(world: World, case: Case) -> float:
    """Return what the case takes undisturbed, the least of three."""
    times: list[float] = []
    for _ in range(3):
        home, began = world.fresh(case), time.monotonic()
        if in_child(lambda home=home: act(world, case, home)):
            raise RuntimeError(f"{case.name} fails undisturbed")
        times.append(time.monotonic() - began)
        shutil.rmtree(home)
    return min(times)


def _fork(work: Callable[[], None]) -> int:
    """Run ``work`` in a child; a process that has imported all costs milliseconds, not seconds."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        work()
        code = 0
    except (DeviceError, RuntimeError, OSError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(code)


def in_child(work: Callable[[], None]) -> int:
    """Return the exit code of a child that runs ``work``; negative when it was killed."""
    _, status = os.waitpid(_fork(work), 0)
    return os.waitstatus_to_exitcode(status)


class Server(http.server.ThreadingHTTPServer):
    """A server whose clients are killed, which is no error."""

    def handle_error(self, *_: Any) -> None:
        """Say nothing."""


class Slow(http.server.SimpleHTTPRequestHandler):
    """A server that takes its time, so that kills fall into downloads; it knows no Range."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def copyfile(self, source: Any, outputfile: Any) -> None:
        """Send in pieces."""
        while piece := source.read(16_384):
            outputfile.write(piece)
            time.sleep(0.001)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder from a process of its own; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    handler = functools.partial(Slow, directory=str(folder))

    def serve() -> None:
        Server(("127.0.0.1", port), handler).serve_forever()

    pid = _fork(serve)
    try:
        for _ in range(200):
            with socket.socket() as knock:
                if knock.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def measure(count: int, seed: int, *, steps: bool, only: Collection[str] = ()) -> dict[str, Any]:
    """Return how many kills there were and what they left; ``faults`` must be empty."""
    folder = Path(tempfile.mkdtemp(prefix="collegium-pull-"))
    try:
        with served(folder) as address:
            in_child(lambda: make_world(folder))
            world = World(folder=folder, address=address)
            cases = tuple(case for case in CASES if not only or case.name in only)
            seen = [each for case in cases for each in at_every_step(world, case)] if steps else []
            seen += at_random(world, cases, count, seed) if count else []
    finally:
        shutil.rmtree(folder)
    kills = [each for each in seen if not each.finished]
    return {
        "schema": 1,
        "kills": len(kills),
        "finished_before_the_kill": len(seen) - len(kills),
        "by_case": dict(Counter(each.case for each in kills)),
        "left": dict(Counter(each.left for each in kills)),
        "faults": [f"{each.case}: {each.fault}" for each in seen if each.fault],
    }


def main() -> None:
    """Parse, measure, print; exit 1 when a kill left anything but the old or the new version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--count", type=int, default=200, metavar="N", help="random kills")
    parser.add_argument("--steps", action="store_true", help="also kill before each disk change")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument(
        "--only", action="append", default=[], choices=[case.name for case in CASES],
        help="this case; may be given again",
    )  # fmt: skip
    asked = parser.parse_args()
    found = measure(asked.count, asked.seed, steps=asked.steps, only=asked.only)
    if asked.json:
        print(json.dumps(found, indent=1))
    else:
        print(f"{found['kills']} kills, {len(found['faults'])} faults; left {found['left']}")
        print("\n".join(found["faults"]))
    sys.exit(1 if found["faults"] else 0)


if __name__ == "__main__":
    main()

"""Measure a real federation on loopback: ours against stock Flower, process per message.

Real SuperLink (TLS, SuperNode authentication, process isolation), SuperExec and SuperNodes; the
same ServerApp loop and the same no-op ClientApp that imports torch. CPU seconds are those of all
processes, also ended ones; the cost of starting is taken out by a run of fewer rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import psutil
from flwr.cli.build import build_fab_from_files

from collegium.client.supernode import SAFE, command
from collegium.core.digest import sha256_hex
from collegium.core.enroll import SUPERNODE_KEY, SUPERNODE_PUBLIC, enroll_site
from collegium.server._flwr_link import Control
from collegium.server.certificates import Certificates, ensure_certificates
from collegium.server.processes import environment, program

HERE = Path(__file__).resolve().parent
ENGINES = ("ours", "ours_stock_poll", "stock")
"""Collegium's defaults; its executor behind Flower's own 3 s poll; a process per message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One federation: ``payload`` bytes each way, ``poll_s`` of the SuperNodes (ours alone)."""

    engine: str
    sites: int
    rounds: int
    payload: int
    poll_s: float
    grid_s: float
    port: int


class Federation:
    """The processes of one case in a folder of their own; a context manager."""

    def __init__(self, case: Case, folder: Path) -> None:
        self._case, self._folder = case, folder
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Federation:
        return self

    def __exit__(self, *_: object) -> None:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            for child in self._children:
                for process in _tree(child.pid):
                    with suppress(psutil.NoSuchProcess):  # it has just ended by itself
                        process.send_signal(sent)
            psutil.wait_procs(
                [psutil.Process(c.pid) for c in self._children if c.poll() is None], 5
            )
        for child in self._children:
            child.wait()
        _reap()

    def run(self) -> list[float]:
        """Return the seconds of each round."""
        case, folder, port = self._case, self._folder, self._case.port
        certs = ensure_certificates(folder / "tls", consortium="benchmark", host="localhost")
        bundle = self._bundle()
        self._start("superlink", self._superlink(certs))
        _ready(f"https://localhost:{port}/health", certs.ca_path)
        self._start(
            "superexec",
            [program("flower-superexec"), "--runtime-api-address", f"localhost:{port}",
             "--root-certificates", str(certs.ca_path)],
        )  # fmt: skip
        with Control(f"localhost:{port}", certs.ca_path) as control:
            for number in range(case.sites):
                keys = folder / f"site{number}"
                enroll_site(f"site{number}", "benchmark", keys)
                control.register((keys / SUPERNODE_PUBLIC).read_text(), f"site{number}")
                self._site(number, keys / SUPERNODE_KEY, certs.ca_path, sha256_hex(bundle))
            out = folder / "rounds.json"
            run = control.submit(bundle, {"out": str(out)})
            while (found := control.run(run)) is None or not found.over:
                time.sleep(0.5)
            if not out.is_file():
                raise RuntimeError(f"{found}: see the logs in {folder}")
        return json.loads(out.read_text())

    def _superlink(self, certs: Certificates) -> list[str]:
        words = [program("flower-superlink"), "--host", "127.0.0.1", "--port", str(self._case.port)]
        words += ["--isolation", "process", "--enable-supernode-auth"]
        words += ["--database", str(self._folder / "superlink.db")]
        words += ["--ssl-certfile", str(certs.server_path), "--ssl-keyfile", str(certs.server_key)]
        words += [
            "--ssl-ca-certfile",
            str(certs.ca_path),
            "--disable-runtime-dependency-installation",
        ]
        return words

    def _site(self, number: int, key: Path, ca: Path, app: str) -> None:
        case, port = self._case, self._case.port + 1 + number
        link = f"localhost:{case.port}"
        if case.engine == "stock":
            words = [program("flower-supernode"), "--superlink", link, "--root-certificates"]
            words += [str(ca), "--auth-supernode-private-key", str(key), "--host", "127.0.0.1"]
            self._start(f"supernode{number}", [*words, "--port", str(port)])
            return
        home = self._folder / f"home{number}"
        words = command(superlink=link, ca=ca, key=key, port=port, poll_s=case.poll_s, home=home)
        self._start(f"supernode{number}", words)
        site = [sys.executable, str(HERE / "federation_apps.py"), str(port), app]
        self._start(f"site{number}", [*site, f"{case.grid_s:g}"])

    def _bundle(self) -> bytes:
        case = self._case
        settings = {"sites": case.sites, "rounds": case.rounds, "bytes": case.payload, "poll": 0.1}
        settings["prompt"] = int(case.engine != "stock")
        lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
        pyproject = f"""
[project]
name = "bench"
version = "1.0.0"
license = "Apache-2.0"
[tool.flwr.app]
publisher = "collegium"
fab-include = ["README.md"]
[tool.flwr.app.components]
serverapp = "federation_apps:server"
clientapp = "federation_apps:client"
[tool.flwr.app.config]
out = ""
{lines}
"""
        return build_fab_from_files({"pyproject.toml": pyproject.encode(), "README.md": b"x"})[0]

    def _start(self, name: str, words: list[str]) -> None:
        extra = SAFE | {
            "FLWR_HOME": str(self._folder / "flwr"),
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2" if self._case.engine != "stock" else "1.0",
            "PYTHONPATH": str(HERE),
        }
        with (self._folder / f"{name}.log").open("wb") as log:
            self._children.append(
                subprocess.Popen(
                    words, env=environment(extra), stdout=log, stderr=log, process_group=0
                )
            )


def measure(case: Case) -> dict[str, Any]:
    """Return what a federation took: seconds of each round, CPU seconds and peak memory in all."""
    folder = Path(tempfile.mkdtemp(prefix="bench-federation-"))
    before = _cpu()
    try:
        with Federation(case, folder) as federation, _Peak() as peak:
            rounds = federation.run()
    except BaseException:
        print(f"the logs are kept in {folder}", file=sys.stderr)
        raise
    shutil.rmtree(folder)
    return {"rounds": rounds, "cpu_seconds": _cpu() - before, "peak_rss_bytes": peak.bytes}


def compare(sites: int, rounds: int, repeats: int, port: int) -> dict[str, Any]:
    """Return the no-op round of every engine; the engines take turns."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ENGINES}
    for repeat in range(repeats):
        for name in ENGINES if repeat % 2 == 0 else reversed(ENGINES):
            pause = 3.0 if name == "ours_stock_poll" else 1.0
            few, many = (
                measure(
                    Case(
                        engine=name, sites=sites, rounds=count, payload=4000, poll_s=pause,
                        grid_s=1.0 if name == "ours" else 0.0, port=port,
                    )
                )
                for count in (2, 2 + rounds)
            )  # fmt: skip
            cpu = (many["cpu_seconds"] - few["cpu_seconds"]) / (rounds * sites)
            seconds = median(many["rounds"][1:])
            found[name].append({"seconds_per_round": seconds, "cpu_seconds_per_message": cpu})
            print(f"{name}: {seconds:.2f} s a round, {cpu:.2f} CPU s a message", file=sys.stderr)
    engines = {
        name: {key: median(run[key] for run in runs) for key in runs[0]} | {"runs": runs}
        for name, runs in found.items()
    }
    stock = engines["stock"]
    ratios = {
        name: {key: stock[key] / engines[name][key] for key in found[name][0]}
        for name in ENGINES[:2]
    }
    return {"sites": sites, "rounds": rounds, "engines": engines, "stock_over": ratios}


def transfer(sizes: list[int], port: int) -> list[dict[str, Any]]:
    """Return what vectors of these many bytes cost to one site and back, above a small one."""
    found: list[dict[str, Any]] = []
    for size in sizes:
        case = Case(
            engine="ours", sites=1, rounds=3, payload=size, poll_s=0.1, grid_s=0.0, port=port
        )
        seen = measure(case)
        found.append(
            {
                "bytes": size,
                "seconds_there_and_back": median(seen["rounds"]),
                "cpu_seconds": seen["cpu_seconds"],
                "peak_rss_bytes": seen["peak_rss_bytes"],
            }
        )
        print(f"{size / 1e6:g} MB: {found[-1]}", file=sys.stderr)
    return found


class _Peak:
    """The largest sum of resident memory over all children of this process."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            total = 0
            for process in _tree(os.getpid())[1:]:
                try:
                    total += process.memory_info().rss
                except psutil.Error:
                    continue
            self.bytes = max(self.bytes, total)


def _tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def _become_subreaper() -> None:
    """Inherit orphans, so that their CPU seconds are counted, too (Linux)."""
    import ctypes

    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)


def _reap() -> None:
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                return
        except ChildProcessError:
            return


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _ready(url: str, ca: Path) -> None:
    context = ssl.create_default_context(cafile=str(ca))
    for _ in range(600):
        try:
            if httpx.get(url, verify=context, trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError("the SuperLink did not start")


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--megabytes", type=int, nargs="*", default=[100, 400])
    parser.add_argument("--port", type=int, default=18100)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    _become_subreaper()
    result: dict[str, Any] = {"schema": 1, "cores": os.cpu_count()}
    if args.repeats:
        result["noop"] = compare(args.sites, args.rounds, args.repeats, args.port)
    result["transfer"] = transfer([m * 10**6 for m in args.megabytes], args.port)
    if args.json:
        print(json.dumps(result, indent=1))
        return
    for name, figures in result.get("noop", {}).get("engines", {}).items():
        print(
            f"{name:18} {figures['seconds_per_round']:6.2f} s a round"
            f" {figures['cpu_seconds_per_message']:6.2f} CPU s a message"
        )
    for row in result["transfer"]:
        print(
            f"{row['bytes'] / 1e6:6.0f} MB there and back: {row['seconds_there_and_back']:.1f} s,"
            f" peak memory of all processes {row['peak_rss_bytes'] / 1e6:.0f} MB"
        )


if __name__ == "__main__":
    main()

"""One measurement in a fresh process: ``python simulation_engine.py ENGINE KIND CLIENTS ...``."""

from __future__ import annotations

import argparse
import json
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import simulation_apps as apps
from simulation_apps import Case, OnRound

Engine = Callable[[Case, int, OnRound], None]


class Watch:
    """Notes when each round ended, and what the process tree had used by the first and last."""

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds
        self.ends: list[float] = []  # seconds since the epoch: the parent's clock too
        self.cpu_s: list[float] = []
        self.core_wait_s: list[float] = []

    def __call__(self, number: int) -> None:
        self.ends.append(time.time())
        if number in (1, self._rounds):
            me = psutil.Process()
            others = me.children(recursive=True)
            # This process's own clock counts ns, the others' 10 ms: a round may take 1 ms.
            self.cpu_s.append(time.process_time() + sum(map(cpu_seconds, others)))
            self.core_wait_s.append(sum(core_wait_seconds(one.pid) for one in (me, *others)))

    def to_dict(self) -> dict[str, Any]:
        """Return what the parent reads."""
        return {"ends": self.ends, "cpu_s": self.cpu_s, "core_wait_s": self.core_wait_s}


def cpu_seconds(process: psutil.Process) -> float:
    """Return a process's user and system seconds; 0 when it has just ended."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system


def core_wait_seconds(pid: int) -> float:
    """Return how long a process's threads were ready but had no core; 0 where nobody counts it.

    The second number of schedstat, in ns: https://docs.kernel.org/scheduler/sched-stats.html
    """
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            total += int(path.read_text().split()[1])
        except (OSError, IndexError):
            continue
    return total / 1e9


def run_local(case: Case, workers: int, on_round: OnRound) -> None:
    """Run the case on Collegium's in-process Grid."""
    from collegium.simulations._flwr import context_of
    from collegium.simulations.grid import LocalGrid

    server = apps.make_server(case, on_round)
    with LocalGrid([apps.app] * case.clients, workers=workers) as grid:
        server(grid, context_of(0, 0, case.clients))


def run_ray(case: Case, workers: int, on_round: OnRound, *, scratch: str) -> None:
    """Run the case on Flower's Ray engine, one actor of one core per worker."""
    from flwr.simulation import run_simulation

    logging.getLogger("flwr").setLevel(logging.ERROR)
    run_simulation(
        server_app=apps.make_server(case, on_round),
        client_app=apps.app,
        num_supernodes=case.clients,
        backend_config={
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
            "init_args": {"num_cpus": workers, "_temp_dir": scratch, "log_to_driver": False},
        },
    )


def run_bare(case: Case, workers: int, on_round: OnRound) -> None:
    """Train every client in a plain loop: no messages, no engine, one core."""
    del workers
    vector = apps.first_model(case.parameters)
    for number in range(1, case.rounds + 1):
        total = np.zeros_like(vector)
        for client in range(case.clients):
            total += apps.train_cnn(vector, client)
        vector = total / np.float32(case.clients)
        on_round(number)


def run_bare_processes(case: Case, workers: int, on_round: OnRound) -> None:
    """Train in ``workers`` processes that send nothing back: what two cores can do at best."""
    shares = [range(worker, case.clients, workers) for worker in range(workers)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for number in range(1, case.rounds + 1):
            list(pool.map(_train_share, [case.parameters] * workers, shares))
            on_round(number)


def _train_share(parameters: int, clients: range) -> None:
    vector = apps.first_model(parameters)
    for client in clients:
        apps.train_cnn(vector, client)


def engines(scratch: str) -> Mapping[str, Engine]:
    """Return every engine by name."""
    return {
        "local": run_local,
        "ray": partial(run_ray, scratch=scratch),
        "bare": run_bare,
        "bare_processes": run_bare_processes,
    }


def main() -> None:
    """Run one engine on one case and write its figures to ``--result``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engine", choices=tuple(engines("")))
    parser.add_argument("kind", choices=("empty", "cnn"))
    parser.add_argument("clients", type=int)
    parser.add_argument("rounds", type=int)
    parser.add_argument("workers", type=int)
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--result", type=Path, required=True)
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    case = Case(kind=asked.kind, clients=asked.clients, rounds=asked.rounds)
    watch = Watch(case.rounds)
    engines(asked.scratch)[asked.engine](case, asked.workers, watch)
    asked.result.write_text(json.dumps(watch.to_dict()))


if __name__ == "__main__":
    main()

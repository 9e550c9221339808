"""Seeded fault simulations of the round engine: how many were played, and which invariant broke."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from collegium.simulations.nemesis import Stage, play
from collegium.simulations.nemesis_check import breaks
from collegium.simulations.nemesis_mutants import MUTANTS, Catch, first_catch

CHUNK = 50
MUTANT_SEEDS = 2_000
TWICE = 50  # every so many seeds, one is played a second time and must give the same event log


def main() -> int:
    """Play the seeds, plant the bugs, print the figures; 1 when an invariant broke."""
    options = _options()
    if options.seed is not None:
        return _replay(options.seed)
    began = time.monotonic()
    with ProcessPoolExecutor(options.workers) as pool:
        total = _played(pool, options.first, options.seeds)
        total["seconds"] = time.monotonic() - began
        catches = {} if options.no_self_test else dict(_planted(pool))
    found = {
        "schema": 1,
        "seeds": options.seeds,
        "first": options.first,
        "workers": options.workers,
        **total,
        "planted": catches,
        "planted_seeds": MUTANT_SEEDS,
    }
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)
    missed = [name for name, catch in catches.items() if catch is None]
    return 1 if found["breaks"] or found["not_repeated"] or missed else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="play this one alone and print its event log")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--no-self-test", action="store_true", help="plant no bugs")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _replay(seed: int) -> int:
    stage = play(seed)
    print("\n".join(stage.world.log))
    found = breaks(stage)
    print(f"event log {stage.world.digest}", *(found or ["no invariant broke"]), sep="\n")
    return 1 if found else 0


def _played(pool: ProcessPoolExecutor, first: int, count: int) -> dict[str, Any]:
    """Return the sum over all seeds; progress goes to stderr."""
    starts = range(first, first + count, CHUNK)
    spans = [range(start, min(start + CHUNK, first + count)) for start in starts]
    counts: dict[str, Counter[str]] = {
        name: Counter() for name in ("sums", "faults", "crashed_in", "ends", "answers")
    }
    broken: list[dict[str, Any]] = []
    differing: list[int] = []
    for number, part in enumerate(pool.map(_chunk, spans), 1):
        for name, counter in counts.items():
            counter.update(part[name])
        broken += part["broken"]
        differing += part["not_repeated"]
        if number % 10 == 0 or number == len(spans):
            done = min(number * CHUNK, count)
            print(f"{done} of {count} seeds, {len(broken)} breaks", file=sys.stderr)
    return {
        **counts.pop("sums"),
        **{name: dict(counter.most_common()) for name, counter in counts.items()},
        "breaks": broken,
        "not_repeated": differing,
    }


def _chunk(seeds: range) -> dict[str, Any]:
    sums: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    crashed: Counter[str] = Counter()
    ends: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    broken: list[dict[str, Any]] = []
    not_repeated: list[int] = []
    for seed in seeds:
        began = time.process_time()
        stage = play(seed)
        found = breaks(stage)
        sums["cpu_seconds"] += time.process_time() - began  # type: ignore[assignment]
        sums["rounds"] += len(stage.histories[-1])
        sums["starts"] += len(stage.ends)
        sums["messages"] += len(stage.post.sent)
        sums["simulated_seconds"] += int(stage.world.time)
        sums["actions"] += stage.world.actions
        faults.update(stage.world.injected)
        crashed.update(stage.world.crashed_in)
        ends[_kind_of_end(stage)] += 1
        answers.update(code for one in stage.histories[-1] for _, code in one.refused)
        if found:
            broken.append({"seed": seed, "breaks": found})
        if seed % TWICE == 0 and play(seed).world.digest != stage.world.digest:
            not_repeated.append(seed)
    return {
        "sums": sums,
        "faults": faults,
        "crashed_in": crashed,
        "ends": ends,
        "answers": answers,
        "broken": broken,
        "not_repeated": not_repeated,
    }


def _kind_of_end(stage: Stage) -> str:
    end = stage.ends[-1][0]
    if "another base model" in end:
        return "refused: an older copy of the store, and the sites have gone on"
    return end.partition(":")[0]


def _planted(pool: ProcessPoolExecutor) -> Iterator[tuple[str, dict[str, Any] | None]]:
    for name, catch in zip(MUTANTS, pool.map(_caught, MUTANTS), strict=True):
        print(f"planted: {name}: {catch}", file=sys.stderr)
        yield name, None if catch is None else {"seed": catch.seed, "found": catch.found}


def _caught(name: str) -> Catch | None:
    return first_catch(name, range(MUTANT_SEEDS))


def _show(found: dict[str, Any]) -> None:
    ms = 1000 * found["cpu_seconds"] / max(1, found["rounds"])
    print(f"{found['seeds']} seeds, {found['rounds']} rounds, {found['starts']} starts of the")
    print(f"coordinator, {found['messages']} messages, {found['seconds']:.0f} s on")
    print(f"{found['workers']} cores, {ms:.1f} CPU ms a round with all its faults")
    print(f"{len(found['breaks'])} breaks, {len(found['not_repeated'])} seeds that did not repeat")
    for broken in found["breaks"][:20]:
        print(f"  seed {broken['seed']}: {broken['breaks'][0]}")
    for title in ("ends", "faults", "crashed_in", "answers"):
        print(f"\n{title}")
        for name, count in found[title].items():
            print(f"  {count:>8}  {name}")
    print(f"\nplanted bugs, caught at which of {found['planted_seeds']} seeds")
    for name, catch in found["planted"].items():
        print(f"  {'NOT CAUGHT' if catch is None else catch['seed']:>10}  {name}")


if __name__ == "__main__":
    sys.exit(main())

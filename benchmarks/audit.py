"""Every broken build must be caught and no correct one flagged: the audit's whole grid."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from scipy.stats import chi2

from collegium.privacy.conformance import SIGNIFICANCE
from collegium.simulations.mutants import MUTANTS, audited

QUIET_POWER = 1e-6
"""Chance of missing the mutant at which the needed number of coordinates is reported."""


def measure(runs: int, correct: int) -> dict[str, Any]:
    """Return how often each mutant was caught, and the correct build flagged, with its cost."""
    found = {name: _case(name, runs) for name in MUTANTS}
    honest = _case(None, correct)
    tests = honest.pop("p_values")
    return {
        "schema": 1,
        "significance": SIGNIFICANCE,
        "p_values": tests,
        "mutants": {name: {k: v for k, v in case.items() if k != "p_values"}
                    for name, case in found.items()},
        "correct": {"runs": honest["runs"], "flagged": honest["caught"],
                    "cpu_seconds": honest["cpu_seconds"]},
        "coordinates_for_noise": {
            f"{factor:g}": coordinates_for(factor, SIGNIFICANCE / tests)
            for factor in (0.5, 0.9, 0.95, 0.98)
        },
        "passed": honest["caught"] == 0 and all(c["caught"] == c["runs"] for c in found.values()),
    }  # fmt: skip


def coordinates_for(factor: float, level: float, miss: float = QUIET_POWER) -> int:
    """Return how many coordinates make a noise of ``factor`` times the plan's fail the test.

    The smallest n with P(factor^2 X >= lower quantile) <= ``miss`` for X ~ chi2(n).
    """

    def missed(n: int) -> float:
        return float(chi2.sf(chi2.ppf(level / 2, n) / factor**2, n))

    low, high = 1, 2
    while missed(high) > miss:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if missed(middle) > miss else (low, middle)
    return high


def _case(name: str | None, runs: int) -> dict[str, Any]:
    caught, seconds, by, tests = 0, [], set[str](), 0
    for seed in range(runs):
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            values = audited(Path(folder) / "run", seed=seed, mutant=name)
        seconds.append(time.process_time() - start)
        caught += not values["passed"]
        tests = values["p_values"]
        by |= {row["name"] for row in values["tests"] if row["verdict"] == "failed"}
    print(f"{name or 'correct build'}: {caught} of {runs}", file=sys.stderr)
    return {
        "runs": runs,
        "caught": caught,
        "by": sorted(by),
        "cpu_seconds": median(seconds),
        "p_values": tests,
    }


def main() -> None:
    """Run the grid and print its figures; exit 1 when a mutant slips through or an honest run
    is flagged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=20, help="of each mutant (default 20)")
    parser.add_argument("--correct", type=int, default=200, help="of the correct build")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)  # sites say so when they refuse a broken update
    found = measure(options.runs, options.correct)
    if options.json:
        print(json.dumps(found))
    else:
        for name, case in found["mutants"].items():
            print(f"{name:26} {case['caught']:3} of {case['runs']}  {', '.join(case['by'])}")
        honest = found["correct"]
        print(f"{'correct build':26} {honest['flagged']:3} of {honest['runs']} flagged")
        print(f"coordinates that show noise x factor: {found['coordinates_for_noise']}")
    sys.exit(0 if found["passed"] else 1)


if __name__ == "__main__":
    main()

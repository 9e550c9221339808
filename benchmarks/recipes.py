"""Measure the training recipe: what each setting does to a private run on public data."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from recipes_cases import Arrays, Case, cases, split
from sklearn.metrics import roc_auc_score

from collegium.core.plan import Plan
from collegium.simulations.run import simulate

Change = Mapping[str, Mapping[str, Any]]
EMA, LAST = {"iterate_average": 0.0, "ema": 0.9}, {"iterate_average": 0.0}


def variants(case: Case) -> dict[str, Change]:
    """Return each variant's changes of the case's plan, by what is varied."""
    plan = case.plan
    rounds, rate = plan.rounds.count, plan.privacy.sampling_rate
    clip, lr = plan.privacy.clip_norm, plan.strategy.server_learning_rate
    found: dict[str, Change] = {"default": {}, "last model": {"strategy": LAST}}
    found["EMA .9"] = {"strategy": EMA}
    for other in (0.1, 0.5, 1.0):
        if other != clip:  # the step in C stays the same: learning rate x C
            found[f"clip {other:g}, lr x {clip / other:g}"] = {
                "privacy": {"clip_norm": other},
                "strategy": {"server_learning_rate": lr * clip / other},
            }
    for factor in (0.25, 0.5, 2.0, 4.0):
        found[f"lr x {factor:g}"] = {"strategy": {"server_learning_rate": lr * factor}}
    few, many = max(1, rounds // 4), rounds * 4
    found[f"{few} rounds, lr x 4, rate x 2"] = {
        "rounds": {"count": few},
        "privacy": {"sampling_rate": min(1.0, 2 * rate)},
        "strategy": {"server_learning_rate": 4 * lr},
    }
    found[f"{many} rounds, lr / 4, rate / 2"] = {
        "rounds": {"count": many},
        "privacy": {"sampling_rate": rate / 2},
        "strategy": {"server_learning_rate": lr / 4},
    }
    found["4 local steps, a quarter of the rounds"] = {
        "rounds": {"count": few, "local_steps": 4},
    }
    if not plan.model.bounds:
        for kind in ("shift", "flip-shift"):
            for copies in (1, 4):
                found[f"{kind}, K = {copies}"] = {
                    "training": {"augment": kind, "augmentations": copies}
                }
    if plan.model.trainable != "head":
        found["warm head"] = {"training": {"warm_head": rounds // 4}}
    found["no privacy"] = {"privacy": {"enabled": False}}
    return found


def changed(plan: Plan, change: Change) -> Plan:
    """Return the plan with single values of its tables replaced."""
    return replace(
        plan, **{name: replace(getattr(plan, name), **dict(new)) for name, new in change.items()}
    )


def measure(case: Case, change: Change, seed: int) -> dict[str, float]:
    """Run one seed through the product's simulator; return accuracy and AUC (two classes)."""
    plan = changed(case.plan, change)
    sites, test = split(case, seed)
    with tempfile.TemporaryDirectory() as place:
        run = simulate(plan, sites=sites, model=case.model, out=Path(place) / "run", seed=seed)
        return _figures(run.model, test)


def _figures(model: torch.nn.Module, test: Arrays) -> dict[str, float]:
    x, y = test
    with torch.no_grad():
        parts = torch.from_numpy(np.asarray(x, dtype=np.float32)).split(512)
        logits = torch.cat([model(part) for part in parts]).double().numpy()
    found = {"accuracy": float((logits.argmax(1) == y).mean())}
    if logits.shape[1] == 2:
        found["auc"] = float(roc_auc_score(y, logits[:, 1] - logits[:, 0]))
    return found


def table(name: str, rows: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return one case as a Markdown table: medians, and in brackets the smallest and largest."""
    keys = list(next(iter(rows.values()))[0])
    lines = [f"| {name} | " + " | ".join(keys) + " |", "|---|" + "---|" * len(keys)]
    for variant, runs in rows.items():
        cells: list[str] = []
        for key in keys:
            values = [run[key] for run in runs]
            cells.append(f"{median(values):.3f} ({min(values):.3f}-{max(values):.3f})")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure the chosen cases and variants, print a table or JSON."""
    known = cases()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", default=["digits-head"], choices=list(known))
    parser.add_argument("--only", nargs="+", help="these variants alone, by name")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    found: dict[str, Any] = {}
    for name in chosen.cases:
        case, rows = known[name], {}
        for variant, change in variants(case).items():
            if chosen.only and variant not in chosen.only:
                continue
            started = time.perf_counter()
            rows[variant] = [measure(case, change, seed) for seed in range(chosen.seeds)]
            took = time.perf_counter() - started
            print(f"{name}: {variant}: {took:.1f} s", file=sys.stderr)
        found[name] = rows
        if not chosen.json:
            print(table(name, rows) + "\n")
    if chosen.json:
        print(json.dumps({"schema": 1, "seeds": chosen.seeds, "cases": found}))


if __name__ == "__main__":
    main()

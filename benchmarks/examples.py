"""The examples on real data, and what other methods give on the very same records."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collegium.core.plan import Plan
from collegium.core.plan_file import with_overrides
from collegium.simulations.records import Records, split_records

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
PLANS = (
    "heart/plan", "heart/plan-dp", "credit-default/plan", "credit-default/plan-dp",
    "german-credit/plan", "german-credit/plan-dp", "pneumonia/plan", "pneumonia/plan-dp",
    "sms/plan", "sms/plan-dp", "cifar/plan", "cifar/plan-dp", "cifar/plan-lora-dp",
)  # fmt: skip
SHOWN = ("macro_accuracy", "accuracy", "auc")


def run(name: str, *, seeds: int, extra: Sequence[str] = ()) -> dict[str, Any]:
    """Run one example through the command line; return the figures of its result.json."""
    plan = EXAMPLES / f"{name}.toml"
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        words = ["simulate", str(plan), "--out", str(out), "--seeds", str(seeds), "--json", *extra]
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "collegium", *words], capture_output=True, text=True, check=False
        )
        seconds = time.perf_counter() - began
        if not (out / "result.json").is_file():
            raise SystemExit(f"{name}: exit {done.returncode}\n{done.stderr}")
        result = json.loads((out / "result.json").read_text())
    return {
        "exit_code": done.returncode,
        "seconds": round(seconds, 1),
        "epsilon": result["epsilon_max"],
        "delta": (result["privacy"] or {}).get("delta"),
        "metrics": result["global"]["metrics"],
        "by_site": result["global"].get("by_site"),
        "local": (result["local"] or {}).get("metrics_mean"),
        "local_on_own": (result["local"] or {}).get("own_metrics_mean"),
        "pooled": (result["pooled"] or {}).get("metrics"),
        "majority": result.get("majority"),
        "open_model": (result["open_model"] or {}).get("metrics"),
        "runs": [each["global"]["metrics"] for each in result.get("runs", [])],
    }


def references(name: str, *, seeds: int) -> dict[str, dict[str, float]] | None:
    """Return medians of scikit-learn's pooled models on the same splits; None where none fits.

    Pooled logistic regression on one-hot, standardised features, and boosted trees: what one
    institution that held all records could reach without privacy.
    """
    plan = Plan.load(EXAMPLES / f"{name}.toml")
    if not (plan.model.bounds or plan.model.categories):
        return None
    first = plan.simulation.seed if plan.simulation else 0
    found: dict[str, list[dict[str, float]]] = {}
    for seed in range(first, first + seeds):
        records = split_records(with_overrides(plan, seed=seed))
        for method, scores in _pooled(plan, records):
            found.setdefault(method, []).append(_scored(records, scores))
    return {
        method: {key: float(median(row[key] for row in rows)) for key in rows[0]}
        for method, rows in found.items()
    }


def _pooled(plan: Plan, records: Records) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield each method's probability of class 1 on the public test part."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    parts = records.by_site.values()
    x = np.concatenate([part.train_x for part in parts])
    y = np.concatenate([part.train_y for part in parts])
    numbers = len(plan.model.bounds)
    columns = make_column_transformer(
        (StandardScaler(), list(range(numbers))),
        (OneHotEncoder(handle_unknown="ignore"), list(range(numbers, x.shape[1]))),
    )
    methods = {
        "pooled logistic": make_pipeline(columns, LogisticRegression(max_iter=2000)),
        "pooled boosted trees": HistGradientBoostingClassifier(random_state=0),
    }
    for method, model in methods.items():
        yield method, model.fit(x, y).predict_proba(records.test.x)[:, 1]


def _scored(records: Records, scores: NDArray[np.float64]) -> dict[str, float]:
    from sklearn.metrics import roc_auc_score

    labels = records.test.y
    assert labels is not None
    right = (scores > 0.5) == labels
    found = {"accuracy": float(right.mean()), "auc": float(roc_auc_score(labels, scores))}
    if records.test_sites is not None:
        each = [right[records.test_sites == site].mean() for site in np.unique(records.test_sites)]
        found["macro_accuracy"] = float(np.mean(each))
    return found


def _table(found: dict[str, Any]) -> Iterator[str]:
    yield "| plan | model | epsilon | macro accuracy | accuracy | AUC |"
    yield "|---|---|--:|--:|--:|--:|"
    for name, entry in found.items():
        rows = [("federated", entry["epsilon"], entry["metrics"])]
        rows += [("pooled, same model", None, entry["pooled"])]
        rows += [("each site alone, mean", entry["epsilon"], entry["local"])]
        own = dict(entry["local_on_own"] or {})
        if own:
            own["macro_accuracy"] = own.pop("accuracy", None)
            rows += [("each site alone, on its own records", entry["epsilon"], own)]
        rows += [("each site's most frequent class", None, entry["majority"])]
        rows += [(method, None, row) for method, row in (entry["references"] or {}).items()]
        for label, epsilon, metrics in rows:
            if metrics:
                cells = [f"{metrics[key]:.3f}" if metrics.get(key) else "" for key in SHOWN]
                spent = "" if epsilon is None else f"{epsilon:.2f}"
                yield f"| {name} | {label} | {spent} | {' | '.join(cells)} |"


def main() -> None:
    """Run the examples that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(PLANS), metavar="NAME/plan")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, help="fewer rounds, to try it out")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    if not os.environ.get("COLLEGIUM_DATA"):
        raise SystemExit("set COLLEGIUM_DATA to the folder of the data sets")
    extra = [] if asked.rounds is None else ["--rounds", str(asked.rounds)]
    found: dict[str, Any] = {}
    for name in asked.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found[name] = run(name, seeds=asked.seeds, extra=extra)
        found[name]["references"] = references(name, seeds=asked.seeds)
        print(f"{name}: {found[name]['metrics']}", file=sys.stderr, flush=True)
    if asked.json:
        print(json.dumps({"schema": 1, "seeds": asked.seeds, "examples": found}, indent=1))
    else:
        print("\n".join(_table(found)))


if __name__ == "__main__":
    main()

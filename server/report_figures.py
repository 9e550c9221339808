"""Which figures of a result are compared and drawn in the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from .plots import Comparison, Curves, Level, Series, Value, ceiling, comparison, curves

Result = Mapping[str, Any]
_HEADLINES = (
    "macro_accuracy", "accuracy", "auc", "dice", "c_index", "average_precision", "rmse",
)  # fmt: skip
_COMPARED = (
    "macro_accuracy",
    "accuracy",
    "auc",
    "dice",
    "c_index",
)  # all in 0..1, larger is better
_NAMES = {
    "macro_accuracy": "Accuracy, mean over sites",
    "accuracy": "Accuracy",
    "auc": "AUC",
    "dice": "Dice",
    "c_index": "C-index",
}
_MOST_SEEDS = 12


def headline_metric(metrics: Mapping[str, float]) -> str | None:
    """Return the metric that stands at the top of the page."""
    return next((name for name in _HEADLINES if name in metrics), next(iter(metrics), None))


def comparisons(result: Result, runs: Sequence[Result]) -> list[Comparison]:
    """Return one dot plot per metric: open model, sites alone, the release, pooled."""
    found = result["global"]["metrics"]
    plots: list[Comparison] = []
    for name in _COMPARED:
        if name in found:
            rows = _rows(result, runs, name)
            if len(rows) > 1:
                percent = name.endswith("accuracy")
                plots.append(comparison(_NAMES[name], rows, metric=name, percent=percent))
    return plots


def _rows(result: Result, runs: Sequence[Result], name: str) -> list[Value]:
    """Return the models of a comparison; small dots are seeds, or sites where there is one seed."""
    private = result["privacy"] is not None
    rows: list[Value] = []

    def add(key: str, label: str, note: str, kind: str, *, inside: str = "metrics") -> None:
        entry = _figures(result, key, inside)
        if name in entry:
            seeds = [
                (f"seed {run['seeds'][0]}", found[name])
                for run in runs[:_MOST_SEEDS]
                if name in (found := _figures(run, key, inside))
            ]
            parts = seeds or (_sites_alone(result[key], name) if key == "local" else [])
            rows.append(Value(label=label, note=note, kind=kind, value=entry[name], parts=parts))

    alone = "same privacy, mean of sites" if private else "mean of sites"
    add("open_model", "Open model", "before any training", "plain")
    add("majority", "Most frequent class", "of each site, no model", "plain", inside="")
    add("local", "Each site alone", alone, "plain", inside="metrics_mean")
    add("global", "Federated", "the released model", "main")
    add("pooled", "All records pooled", "without privacy", "plain")
    return rows


def _figures(result: Result, key: str, inside: str) -> Mapping[str, float]:
    """Return the figures of one model in a result, empty where it has none."""
    entry = result.get(key) or {}
    return entry.get(inside, {}) if inside else entry


def _sites_alone(entry: Mapping[str, Any], name: str) -> list[tuple[str, float]]:
    return [(site, found[name]) for site, found in entry["by_site"].items() if name in found]


def round_curves(result: Result, runs: Sequence[Result]) -> list[Curves]:
    """Return the curves over rounds: the headline metric where it is public, and epsilon."""
    drawn: list[Curves] = []
    name = headline_metric(result["global"]["metrics"])
    if name in _COMPARED and (lines := _lines(result, runs, lambda e: _of(e["metrics"], name))):
        opened = _of((result["open_model"] or {}).get("metrics"), name)
        values = [y for line in lines for _, y in line.points] + [
            v for v in (opened,) if v is not None
        ]
        low = 0.0 if min(values) < 0.5 else 0.5
        drawn.append(
            curves(
                f"{_NAMES[name]} by round",
                lines,
                levels=[]
                if opened is None
                else [Level(label="open model", value=opened, above=opened < low + 0.1)],
                low=low,
                high=1.0,
                percent=name.endswith("accuracy"),
            )
        )
    if lines := _lines(result, runs, lambda entry: entry.get("epsilon")):
        budget = result["epsilon_budget"]
        most = max([y for line in lines for _, y in line.points] + ([budget] if budget else []))
        drawn.append(
            curves(
                "Epsilon spent, largest over sites",
                lines,
                levels=[Level(label=f"budget {budget:g}", value=budget)] if budget else [],
                low=0.0,
                high=ceiling(most),
                percent=False,
            )
        )
    return drawn


def _lines(result: Result, runs: Sequence[Result], figure: Any) -> list[Series]:
    """Return one curve, or with several seeds a thin one for each and their median."""
    thin = [_points(run["history"], figure) for run in runs[:_MOST_SEEDS]]
    thin = [points for points in thin if points]
    if not thin:
        points = _points(result["history"], figure)
        return [Series(label="", kind="main", points=points)] if points else []
    by_round: dict[float, list[float]] = {}
    for points in thin:
        for x, y in points:
            by_round.setdefault(x, []).append(y)
    middle = [(x, median(values)) for x, values in sorted(by_round.items())]
    faint = [Series(label="", kind="thin", points=points) for points in thin]
    return [*faint, Series(label="", kind="main", points=middle)]


def _points(history: Sequence[Mapping[str, Any]], figure: Any) -> list[tuple[float, float]]:
    found = [(float(entry["round"]), figure(entry)) for entry in history]
    return [(x, float(y)) for x, y in found if y is not None]


def _of(metrics: Mapping[str, float] | None, name: str | None) -> float | None:
    return None if not metrics or name is None else metrics.get(name)

"""report.html: one self-contained page that shows what is in result.json, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.files import write_atomic
from . import pages, report_figures, words
from .result import read_result

CANDIDATE = {
    "candidate": ("Candidate", "", ""),
    "name": ("Candidate", "", ""),
    "recipe": ("Recipe", "", ""),
    "accuracy": ("Accuracy", "num", "percent"),
    "agreement": ("Agreement", "num", "percent"),
    "fidelity": ("with own fp32", "num", "percent"),
    "metric_delta": ("accuracy, points", "num", "points"),
    "auc_delta": ("AUC, points", "num", "points"),
    "size_bytes": ("Size", "num", "size"),
    "cpu_ms": ("CPU time", "num", "ms"),
    "latency_ratio": ("of fp32", "num", "ratio"),
    "verdict": ("Gate", "", ""),
}
"""The parity table's columns: heading, alignment, format. Other keys stay in result.json."""
_TOLD = frozenset(("accuracy", "auc", "dice", "c_index", "rmse"))
_MOST_COLUMNS = 3  # of metrics beside a site's epsilon


def write_report(folder: Path, path: Path) -> Path:
    """Write the report of the finished run in ``folder`` to ``path``; return ``path``.

    Raises ``MissingInput`` or ``InvalidInput`` when the run has no readable result.
    """
    write_atomic(path, render(read_result(folder)).encode())
    return path


def render(values: Mapping[str, Any]) -> str:
    """Return the page for the content of one result.json."""
    return pages.render("report.html.j2", _context(values))


def _context(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the template reads; keys that a result may lack become None."""
    runs = list(values.get("runs") or [])
    defaults = dict.fromkeys(
        (
            "consortium",
            "dataset",
            "model",
            "privacy",
            "edge",
            "evaluation",
            "open_model",
            "local",
            "pooled",
            "epsilon_budget",
            "epsilon_max",
            "epsilon_if_shared",
            "model_sha256",
            "seconds",
            "peak_rss_bytes",
        )
    )
    result: dict[str, Any] = {**defaults, **values}
    return {
        "r": result,
        "runs": runs,
        "headline": report_figures.headline_metric(result["global"]["metrics"]),
        "comparisons": report_figures.comparisons(result, runs),
        "curves": report_figures.round_curves(result, runs),
        "site_metrics": _site_columns([site["metrics"] for site in result["sites"]]),
        "global_metrics": _columns([result["global"]["metrics"]]),
        "candidates": _candidates(result["edge"]),
        "troubled": [entry for entry in result["history"] if entry["refused"] or entry["late"]],
        "bytes_up": sum(entry["bytes_up"] for entry in result["history"]),
        "bytes_down": sum(entry["bytes_down"] for entry in result["history"]),
    }


def _columns(metrics: Sequence[Mapping[str, float] | None]) -> list[str]:
    """Return the metrics that at least one of several tables has, in a fixed order."""
    found = {name for each in metrics if each for name in each}
    known = [name for name in pages.METRIC_NAMES if name in found]
    return [*known, *sorted(found - set(known))]


def _site_columns(metrics: Sequence[Mapping[str, float] | None]) -> list[str]:
    """Return the metrics that fit beside a site's epsilon; all of them stand in result.json."""
    return sorted(_columns(metrics), key=lambda name: name not in _TOLD)[:_MOST_COLUMNS]


def _candidates(edge: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the parity table's columns and rows as texts, or None when there is none."""
    if not edge or not edge.get("candidates"):
        return None
    found: list[Mapping[str, Any]] = edge["candidates"]
    keys = list(dict.fromkeys(key for row in found for key in row if key in CANDIDATE))
    keys.sort(key=list(CANDIDATE).index)
    return {
        "columns": [{"label": CANDIDATE[key][0], "kind": CANDIDATE[key][1]} for key in keys],
        "rows": [
            {
                "chosen": _recipe(row) == edge["recipe"],
                "cells": [
                    {"text": _cell(key, row.get(key)), "kind": CANDIDATE[key][1]} for key in keys
                ],
            }
            for row in found
        ],
    }


def _recipe(row: Mapping[str, Any]) -> Any:
    return row.get("recipe", row.get("candidate", row.get("name")))


def _cell(key: str, value: Any) -> str:
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, Mapping):  # a verdict: ok, code, reason, cure
        return "passed" if value.get("ok") else str(value.get("reason") or value.get("code"))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, int | float):
        return str(value)
    match CANDIDATE[key][2]:
        case "percent":
            return pages.percent(value)
        case "points":
            return f"{100 * value:+.1f}"
        case "size":
            return words.size(value)
        case "ms":
            return f"{value:.2g} ms"
        case "ratio":
            return f"{value:.2f}\N{MULTIPLICATION SIGN}"
        case _:
            return f"{value:.3g}"

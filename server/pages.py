"""What both pages of a run share: the templates, and how figures are read by people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import words

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "macro_accuracy": "Accuracy, mean over sites",
    "balanced_accuracy": "Accuracy, mean over classes",
    "majority": "Majority class",
    "auc": "AUC",
    "average_precision": "Average precision",
    "calibration_error": "Calibration error",
    "dice": "Dice",
    "c_index": "C-index",
    "rmse": "RMSE",
    "mae": "Mean absolute error",
    "r2": "R squared",
    "brier": "Brier score",
    "positive_rate": "Share answered as class 1",
}
_PERCENT = frozenset(
    ("accuracy", "macro_accuracy", "balanced_accuracy", "majority", "sensitivity", "specificity",
     "positive_rate")
)  # fmt: skip


def render(template: str, context: Mapping[str, Any]) -> str:
    """Return a page; a name that the context lacks is an error, never an empty place."""
    return _environment().get_template(template).render(context)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters: dict[str, Any] = environment.filters
    filters |= {
        "percent": percent,
        "epsilon": _or_dash(words.epsilon),
        "size": _or_dash(words.size),
        "duration": _or_dash(words.duration),
        "general": _or_dash(words.general),
        "shrinkage": words.shrinkage,
        "metric": metric,
        "short": short,
        "name": metric_name,
    }
    return environment


def _or_dash(show: Callable[..., str]) -> Callable[..., str]:
    """Return ``show`` with a dash for a figure that is not there."""

    def shown(value: float | None, *options: Any) -> str:
        return "\N{EN DASH}" if value is None else show(value, *options)

    return shown


def percent(value: float | None, digits: int = 1) -> str:
    """Return 0.9408 as '94.1%'."""
    return "\N{EN DASH}" if value is None else f"{value:.{digits}%}"


def metric(value: float | None, name: str) -> str:
    """Return a metric as it is read: shares in percent, the others with three decimals."""
    if value is None:
        return "\N{EN DASH}"
    return percent(value) if name in _PERCENT else f"{value:.3f}"


def metric_name(name: str) -> str:
    """Return a metric's name for people."""
    return METRIC_NAMES.get(name, name.replace("_", " ").capitalize())


def short(digest: str | None) -> str:
    """Return the first 12 digits of a digest."""
    return "\N{EN DASH}" if not digest else digest.removeprefix("sha256:")[:12]

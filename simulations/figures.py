"""What is told of a model on a simulation's public test part: over its records, and over sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..client.train import Trainer
from ..core.layout import Vector
from ..core.plan import Plan
from ..models.evaluate import finite_outputs, site_metrics
from ..models.tasks import task
from .records import Records

LOOK = 500  # test records
Answer = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Metrics over all test records, and over each site's, empty where they belong to none."""

    metrics: dict[str, float]
    by_site: dict[str, dict[str, float]]


def figures(plan: Plan, answer: Answer, records: Records) -> Figures:
    """Return the metrics of a model on the global test part, empty without labelled records.

    ``answer`` gives the model's outputs of raw values. Where test records belong to sites,
    ``macro_accuracy`` is the mean of the sites' accuracies.
    """
    test, sites = records.test, records.test_sites
    if test.y is None or len(test) == 0:
        return Figures(metrics={}, by_site={})
    kind = task(plan.model)
    outputs = finite_outputs(answer(test.x))
    metrics = kind.metrics(outputs, test.y)
    if sites is None:
        return Figures(metrics=metrics, by_site={})
    each: Mapping[str, Any] = site_metrics(kind, outputs, test.y, sites)
    if "macro_accuracy" in each:
        metrics["macro_accuracy"] = each["macro_accuracy"]
    return Figures(metrics=metrics, by_site=each["by_site"])


def measure(plan: Plan, trainer: Trainer, vector: Vector, records: Records) -> dict[str, float]:
    """Return the metrics of a released vector on the global test part."""
    return figures(plan, lambda x: trainer.outputs(vector, x), records).metrics


def looked_at(records: Records, *, cheap: bool) -> Records:
    """Return the records on which each round's model is looked at, for the live view.

    All of the test part where that is ``cheap``; else every k-th record, ``LOOK`` at most: a
    large test part would go through the model in every round.
    """
    test, sites = records.test, records.test_sites
    if cheap or len(test) <= LOOK:
        return records
    chosen = np.linspace(0, len(test) - 1, LOOK).astype(np.intp)
    part = replace(test, x=test.x[chosen], y=None if test.y is None else test.y[chosen])
    return replace(records, test=part, test_sites=None if sites is None else sites[chosen])


def majority(plan: Plan, records: Records) -> dict[str, Any] | None:
    """Return what answering each site's most frequent training class would reach; no model.

    None where answers are not classes, or where test records belong to no site.
    """
    if plan.model.task != "classification" or records.test_sites is None:
        return None
    shares: dict[str, float] = {}
    right = total = 0
    for name, data in records.by_site.items():
        if len(data.train_y) == 0 or len(data.test_y) == 0:
            continue
        answer = int(np.bincount(data.train_y).argmax())
        hits = int((data.test_y == answer).sum())
        shares[name], right, total = hits / len(data.test_y), right + hits, total + len(data.test_y)
    if not shares:
        return None
    return {
        "accuracy": right / total,
        "macro_accuracy": float(np.mean(list(shares.values()))),
        "by_site": shares,
    }

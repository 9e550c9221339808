"""Findings on labels: classes that are absent or rare, targets outside the plan, sorted rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..core.fields import shown
from ..core.plan_model import ModelRef
from .findings import Finding, percent
from .site_data import IGNORED, Labels, SiteData

RARE = 10
_SORTED_FROM = 40


def label_findings(data: SiteData, model: ModelRef) -> Iterator[Finding]:
    """Yield findings on the training part's labels."""
    y = data.train_y
    if not len(y):
        return
    match model.task:
        case "classification":
            yield from _classes(y, model)
            yield from _sorted(y)
        case "multilabel":
            yield from _multilabel(y, model)
        case "regression":
            yield from _target(y, model)
        case "survival":
            yield from _survival(y, model)
        case "segmentation":
            yield from _masks(y, model)
        case _:
            return


def _classes(y: Labels, model: ModelRef) -> Iterator[Finding]:
    counts = np.bincount(y, minlength=len(model.classes))
    absent = [name for name, count in zip(model.classes, counts, strict=True) if not count]
    rare = [name for name, count in zip(model.classes, counts, strict=True) if 0 < count < RARE]
    if absent:
        yield Finding(
            kind="drift",
            where="labels",
            what=f"no record of class {', '.join(absent)}",
            cure="is that as expected? Otherwise compare [data.labels] and [data.rows]",
        )
    if rare:
        yield Finding(
            kind="drift",
            where="labels",
            what=f"fewer than {RARE} records of class {', '.join(rare)}",
            cure="is that as expected?",
        )


def _sorted(y: Labels) -> Iterator[Finding]:
    runs = int((np.diff(y) != 0).sum()) + 1
    kinds = len(np.unique(y))
    if len(y) >= _SORTED_FROM and kinds > 1 and runs == kinds:
        yield Finding(
            kind="drift",
            where="labels",
            what="the rows are sorted by label",
            cure="nothing to do here (batches are drawn at random); do not cut such a file",
        )


def _multilabel(y: Labels, model: ModelRef) -> Iterator[Finding]:
    for name, share in zip(model.classes, y.mean(axis=0).tolist(), strict=True):
        if share in (0.0, 1.0):
            yield Finding(
                kind="drift",
                where=f"labels, class {shown(name)}",
                what="every record has it" if share else "no record has it",
                cure="is that as expected?",
            )


def _target(y: Labels, model: ModelRef) -> Iterator[Finding]:
    if len(model.target) == 2:
        outside = float(((y < model.target[0]) | (y > model.target[1])).mean())
        if outside:
            yield Finding(
                kind="drift",
                where="labels",
                what=f"{percent(outside)} lie outside the plan's target",
                cure="check the unit of measurement, or agree on another [model] target",
            )
    if len(y) > 1 and (y == y[0]).all():
        yield Finding(
            kind="drift", where="labels", what="all are alike", cure="compare [data] label"
        )


def _survival(y: Labels, model: ModelRef) -> Iterator[Finding]:
    events = int(y[:, 1].sum())
    if events < RARE or events == len(y):
        yield Finding(
            kind="drift",
            where="events",
            what="every record has one" if events == len(y) else f"fewer than {RARE} were seen",
            cure="compare [data] event: 1 where it was seen, 0 where the record was censored",
        )
    if len(model.target) > 1:
        last = float((y[:, 0] > model.target[-1]).mean())
        if last > 0.5:
            yield Finding(
                kind="drift",
                where="times",
                what=f"{percent(last)} lie beyond the plan's last time",
                cure="check the unit of time: days, months or years",
            )


def _masks(y: Labels, model: ModelRef) -> Iterator[Finding]:
    present = np.unique(y)
    absent = [name for index, name in enumerate(model.classes) if index not in present]
    if absent:
        yield Finding(
            kind="drift",
            where="masks",
            what=f"no pixel of class {', '.join(absent)}",
            cure='is that as expected? A mask of 0 and 255 needs [data.labels], like "255" = '
            '"lesion": without it 255 is a pixel that nobody labelled'
            if IGNORED in present
            else "is that as expected?",
        )

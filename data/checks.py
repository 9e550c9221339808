"""What is wrong with a site's records, said before the first question is answered.

A record that cannot be trained on would raise in the very steps that sample it; the refusal
would tell the coordinator which steps those were.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import Problem
from ..core.mechanism import Unit
from ..core.plan_model import ModelRef
from .check_labels import label_problem
from .growing import chunks_of
from .site_data import Labels, Records, SiteData

LARGEST_TOKEN = 2**24
"""Below it a whole number is exact as float32, which is how batches reach a model."""


def check(
    data: SiteData, *, model: ModelRef, public_records: int, unit: Unit = "record"
) -> list[Problem]:
    """Return every reason why these records cannot take part; none of them names a value.

    ``model`` says what records and labels look like, and ``public_records`` is the size that
    the site has declared as its public upper bound, in units.
    """
    problems: list[Problem] = []
    for part, x, y in parts_of(data):
        where = f"the {part} part"
        if len(x) != len(y):
            problems.append(
                Problem(
                    where=where,
                    what="inputs and labels differ in number",
                    why="Each record needs one label",
                    cure="read the file again",
                )
            )
        problems += label_problem(y, model, where)
        problems += _inputs(x, model, where)
    if unit == "patient":
        problems += _patients(data)
    owners = data.train_units if unit == "patient" else None
    size = len(data.train_y) if owners is None else len(np.unique(owners))
    if size > public_records:
        problems.append(
            Problem(
                where="the training part",
                what=f"it holds more {unit}s than the site's public_records",
                why="That number is public, an upper bound, and what updates are checked against",
                cure=f"raise public_records in the plan, or take fewer {unit}s",
            )
        )
    return problems


def parts_of(data: SiteData) -> Iterator[tuple[str, Records, Labels]]:
    """Yield the name, inputs and labels of each part that there is."""
    yield "training", data.train_x, data.train_y
    yield "test", data.test_x, data.test_y
    if data.calibration_x is not None and data.calibration_y is not None:
        yield "calibration", data.calibration_x, data.calibration_y


def _inputs(x: Records, model: ModelRef, where: str) -> list[Problem]:
    kind = x.dtype.kind
    if model.bounds or model.categories:
        return [_no_numbers(where)] if kind not in "fiub" else _features(x, model, where)
    if kind == "f":
        finite = all(bool(np.isfinite(x[part]).all()) for part in chunks_of(x))
        if not finite:
            return [_not_finite(where)]
    if model.image:
        if kind not in "fiub":
            return [_no_numbers(where)]
        return [_pixels(where)] if x.dtype != np.uint8 and _outside(x, 0, 255) else []
    if kind in "iu" and x.ndim == 2 and _outside(x, -1, LARGEST_TOKEN - 1):
        return [
            Problem(
                where=where,
                what="a token is below -1 (none) or above 2^24",
                why="Tokens are whole numbers that stay exact as float32",
                cure="encode the texts with the plan's model",
            )
        ]
    return []


def _features(x: Records, model: ModelRef, where: str) -> list[Problem]:
    numbers, sizes = len(model.bounds), [len(known) for known in model.categories.values()]
    if x.ndim != 2 or x.shape[1] != numbers + len(sizes):
        return [
            Problem(
                where=where,
                what=f"a record has the shape {x.shape[1:]}",
                why=f"The plan has {numbers} numbers and {len(sizes)} categories per record",
                cure="export the columns that the plan names",
            )
        ]
    least = -1 if model.unknown == "other" or model.missing != "refuse" else 0
    nan_allowed = model.missing != "refuse"
    finite = indexed = True
    for part in chunks_of(x):
        values = np.asarray(x[part])
        wrong = np.isinf(values[:, :numbers])
        finite &= not (wrong if nan_allowed else wrong | np.isnan(values[:, :numbers])).any()
        codes = values[:, numbers:]
        inside = (codes >= least) & (codes < np.array(sizes)) & (codes == np.floor(codes))
        indexed &= bool(inside.all())
    problems = [] if finite else [_not_finite(where)]
    if not indexed:
        problems.append(
            Problem(
                where=where,
                what="a category is not one that the plan lists",
                why="It is kept as its place in the plan's list"
                + (", -1 where it is none of them" if least else ""),
                cure="let a reader of collegium turn categories into places",
            )
        )
    return problems


def _outside(x: NDArray[Any], low: float, high: float) -> bool:
    return any(bool(((x[part] < low) | (x[part] > high)).any()) for part in chunks_of(x))


def _no_numbers(where: str) -> Problem:
    return Problem(
        where=where,
        what="its values are texts or objects, not numbers",
        why="The plan's model reads numbers, and categories as their places in the plan's list",
        cure="let a reader of collegium turn the file into numbers",
    )


def _not_finite(where: str) -> Problem:
    return Problem(
        where=where,
        what="a value is missing or infinite",
        why="The plan does not say what a missing value means, and an infinite one has no gradient",
        cure="leave those records out, or agree on a plan with [model] missing",
    )


def _pixels(where: str) -> Problem:
    return Problem(
        where=where,
        what="a pixel is below 0 or above 255",
        why="Images are raw pixels, which the model's first layer scales",
        cure="export them as uint8",
    )


def _patients(data: SiteData) -> list[Problem]:
    """Return what keeps a patient's records from being sampled and clipped together."""
    train, test = data.train_units, data.test_units
    held = data.calibration_units
    if train is None or test is None or (held is None and data.calibration_y is not None):
        return [
            Problem(
                where="the records",
                what="they do not say which patient each belongs to",
                why="The plan protects patients: all records of one are sampled together",
                cure="name the patient column in [data] unit, or protect the unit 'record'",
            )
        ]
    problems: list[Problem] = []
    lengths = [(train, data.train_y), (test, data.test_y)]
    if held is not None and data.calibration_y is not None:
        lengths.append((held, data.calibration_y))
    if any(len(units) != len(labels) for units, labels in lengths):
        problems.append(
            Problem(
                where="the records",
                what="patients and labels differ in number",
                why="Each record belongs to one patient",
                cure="read the file again",
            )
        )
    if np.intersect1d(train, test).size:
        problems.append(_shared("test", "the test would flatter the model"))
    if held is not None and np.intersect1d(train, held).size:
        problems.append(_shared("calibration", "the threshold would be fitted on trained records"))
    return problems


def _shared(part: str, harm: str) -> Problem:
    return Problem(
        where=f"the {part} part",
        what="a patient has records in the training part, too",
        why=f"{harm}, and the patient would be charged twice",
        cure="split by patient",
    )

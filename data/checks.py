"""What is wrong with a site's records, said before the first question is answered.

A record that cannot be trained on would raise in the very steps that sample it; the refusal
would tell the coordinator which steps those were.
"""

from __future__ import annotations

import numpy as np

from ..core.errors import Problem
from ..core.mechanism import Unit
from .site_data import SiteData


def check(
    data: SiteData,
    *,
    classes: int,
    public_records: int,
    unit: Unit = "record",
    task: str = "classification",
) -> list[Problem]:
    """Return every reason why these records cannot take part; none of them names a value.

    ``classes`` is the number of classes of the plan, ``task`` what it learns, and
    ``public_records`` the size that the site has declared as its public upper bound, in units.
    """
    problems: list[Problem] = []
    for part, x, y in (
        ("training", data.train_x, data.train_y),
        ("test", data.test_x, data.test_y),
    ):
        if len(x) != len(y):
            problems.append(
                Problem(
                    where=f"the {part} part",
                    what="inputs and labels differ in number",
                    why="each record needs one label",
                    cure="read the file again",
                )
            )
        if task != "classification":
            continue
        if not np.issubdtype(y.dtype, np.integer) or np.any((y < 0) | (y >= classes)):
            problems.append(
                Problem(
                    where=f"the {part} part",
                    what="a label is not a class of the plan",
                    why=f"the plan has classes 0 to {classes - 1}",
                    cure="map the labels to the plan's [model] classes",
                )
            )
    if unit == "patient":
        problems += _patients(data)
    owners = data.train_units if unit == "patient" else None
    size = len(data.train_y) if owners is None else len(np.unique(owners))
    if size > public_records:
        problems.append(
            Problem(
                where="the training part",
                what=f"it holds more {unit}s than the site's public_records",
                why="that number is public, an upper bound, and what updates are checked against",
                cure=f"raise public_records in the plan, or take fewer {unit}s",
            )
        )
    return problems


def _patients(data: SiteData) -> list[Problem]:
    """Return what keeps a patient's records from being sampled and clipped together."""
    train, test = data.train_units, data.test_units
    if train is None or test is None:
        return [
            Problem(
                where="the records",
                what="they do not say which patient each belongs to",
                why="the plan protects patients: all records of one are sampled together",
                cure="name the patient column in [data] unit, or protect the unit 'record'",
            )
        ]
    problems: list[Problem] = []
    if len(train) != len(data.train_y) or len(test) != len(data.test_y):
        problems.append(
            Problem(
                where="the records",
                what="patients and labels differ in number",
                why="each record belongs to one patient",
                cure="read the file again",
            )
        )
    if np.intersect1d(train, test).size:
        problems.append(
            Problem(
                where="the test part",
                what="a patient has records in the training part, too",
                why="the test would flatter the model, and the patient would be charged twice",
                cure="split by patient",
            )
        )
    return problems

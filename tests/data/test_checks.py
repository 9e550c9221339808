"""What keeps records out, for every task, before the first question; no value is named."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collegium.data.checks import check
from collegium.data.site_data import SiteData

Make = Callable[..., Any]
N = np.nan


def records(x: Any, y: Any, **others: Any) -> SiteData:
    """All in the training part; the test part holds the first of them."""
    x, y = np.asarray(x), np.asarray(y)
    return SiteData(asset="ward", train_x=x, train_y=y, test_x=x[:1], test_y=y[:1], **others)


TABLE = {"bounds": {"a": (0.0, 9.0)}, "categories": {"b": ("p", "q")}}
PIXELS = np.full((2, 2, 2, 1), 255, dtype=np.uint8)
IMAGE = {"bounds": {}, "image": (2, 2, 1)}
MASKS = IMAGE | {"task": "segmentation"}
MASK = np.array([[[0, 1], [255, 0]]] * 2)
TIMES = {"task": "survival", "classes": (), "target": (0.0, 9.0)}
NUMBER = {"task": "regression", "classes": (), "target": (0.0, 9.0)}
MANY = {"task": "multilabel", "classes": ("p", "q", "r")}
F = np.float32

GOOD: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "a table": (TABLE, F([[4711, 0], [1, 1]]), [0, 1]),
    "missing": (TABLE | {"missing": "mean"}, F([[N, -1], [1, 1]]), [0, 1]),
    "unknown": (TABLE | {"unknown": "other"}, F([[1, -1], [1, 1]]), [0, 1]),
    "pixels": (IMAGE, PIXELS, [0, 1]),
    "float pixels": (IMAGE, PIXELS.astype(F), [0, 1]),
    "tokens": ({"bounds": {}}, np.array([[5, 0], [9, -1]], dtype=np.int32), [0, 1]),
    "texts": ({"bounds": {}}, np.array(["a", "b"], dtype=object), [0, 1]),
    "multilabel": (TABLE | MANY, F([[1, 0], [1, 1]]), F([[0, 1, 1], [0, 0, 0]])),
    "regression": (TABLE | NUMBER, F([[1, 0], [1, 1]]), F([0.5, -3])),
    "survival": (TABLE | TIMES, F([[1, 0], [1, 1]]), F([[0, 1], [700, 0]])),
    "masks": (MASKS, PIXELS, MASK),
}

BAD: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "a missing value": (TABLE, F([[N, 0], [1, 1]]), [0, 1]),
    "an infinite value": (TABLE | {"missing": "flag"}, F([[np.inf, 0], [1, 1]]), [0, 1]),
    "no category": (TABLE, F([[4711, -1], [1, 1]]), [0, 1]),
    "a category beyond": (TABLE | {"unknown": "other"}, F([[1, 2], [1, 1]]), [0, 1]),
    "half a category": (TABLE, F([[1, 0.5], [1, 1]]), [0, 1]),
    "a NaN category": (TABLE | {"missing": "mean"}, F([[1, N], [1, 1]]), [0, 1]),
    "a column too few": (TABLE, F([[1], [1]]), [0, 1]),
    "a table of texts": (TABLE, np.array([["4711", "0"], ["1", "1"]]), [0, 1]),
    "a table of objects": (TABLE, np.array([[4711, 0], [1, 1]], dtype=object), [0, 1]),
    "pixels of texts": (IMAGE, PIXELS.astype(str), [0, 1]),
    "whole pixels beyond": (IMAGE, PIXELS.astype(np.int32) + 1, [0, 1]),
    "pixels of 16 bits": (IMAGE, PIXELS.astype(np.uint16) + 1, [0, 1]),
    "whole pixels below": (IMAGE, -PIXELS.astype(np.int64), [0, 1]),
    "a token beyond, unsigned": ({"bounds": {}}, np.uint32([[2**24, 0], [1, 1]]), [0, 1]),
    "pixels beyond": (IMAGE, PIXELS.astype(F) + 1, [0, 1]),
    "pixels that are none": (IMAGE, PIXELS.astype(F) * N, [0, 1]),
    "a token beyond": ({"bounds": {}}, np.array([[2**24, 0], [1, 1]]), [0, 1]),
    "a class beyond": (TABLE, F([[1, 0], [1, 1]]), [0, 2]),
    "half a class": (TABLE, F([[1, 0], [1, 1]]), [0, 0.5]),
    "two columns of classes": (TABLE, F([[1, 0], [1, 1]]), [[0, 1], [1, 0]]),
    "not 0 or 1": (TABLE | MANY, F([[1, 0], [1, 1]]), F([[0, 2, 1], [0, 0, 0]])),
    "a class too few": (TABLE | MANY, F([[1, 0], [1, 1]]), F([[0, 1], [0, 0]])),
    "no target": (TABLE | NUMBER, F([[1, 0], [1, 1]]), F([N, 1])),
    "two targets": (TABLE | NUMBER, F([[1, 0], [1, 1]]), F([[1, 2], [1, 2]])),
    "a time below 0": (TABLE | TIMES, F([[1, 0], [1, 1]]), F([[-1, 1], [7, 0]])),
    "half an event": (TABLE | TIMES, F([[1, 0], [1, 1]]), F([[1, 0.5], [7, 0]])),
    "no event": (TABLE | TIMES, F([[1, 0], [1, 1]]), F([1, 7])),
    "a mask beyond": (MASKS, PIXELS, MASK + 1),
    "a mask of another size": (MASKS, PIXELS, MASK[:, :1]),
    "a mask of numbers": (MASKS, PIXELS, MASK.astype(F)),
}


@pytest.mark.parametrize("case", GOOD)
def test_records_of_each_kind_and_task_pass(plan_of: Make, case: str) -> None:
    model, x, y = GOOD[case]
    assert check(records(x, y), model=plan_of(**model).model, public_records=2) == []


@pytest.mark.parametrize("case", BAD)
def test_each_fault_is_one_problem_without_a_value(plan_of: Make, case: str) -> None:
    model, x, y = BAD[case]
    good = next(iter(GOOD.values()))
    plan = plan_of(**model)
    problems = check(records(x, y), model=plan.model, public_records=2)
    assert {p.where for p in problems} <= {"the training part", "the test part"}
    assert any(p.where == "the training part" for p in problems) and good
    assert all(p.cure and "4711" not in str(p) for p in problems)


def test_the_calibration_part_is_checked_like_the_others(plan_of: Make) -> None:
    model = plan_of(**TABLE).model
    x, y = F([[1, 0], [1, 1]]), np.array([0, 1])
    data = records(x, y, calibration_x=x, calibration_y=y + 1)
    (problem,) = check(data, model=model, public_records=2)
    assert problem.where == "the calibration part"
    units = {"train_units": np.array([1, 2]), "test_units": np.array([3])}
    data = records(x, y, calibration_x=x, calibration_y=y, **units)
    assert check(data, model=model, public_records=2, unit="patient")  # nobody's
    for held, count in (([4, 5], 0), ([4, 1], 1), ([4], 1)):
        named = replace(data, calibration_units=np.array(held))
        assert len(check(named, model=model, public_records=2, unit="patient")) == count

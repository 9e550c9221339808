"""A site's records never show themselves."""

from dataclasses import replace

import numpy as np
import pytest

from collegium.core.plan_model import ModelRef
from collegium.data.checks import check
from collegium.data.site_data import SiteData

DATA = SiteData(
    asset="cardiology",
    train_x=np.full((3, 2), 4711.0, dtype=np.float32),
    train_y=np.array([0, 1, 1]),
    test_x=np.zeros((1, 2), dtype=np.float32),
    test_y=np.array([0]),
)
MODEL = ModelRef(name="tabular:linear", task="classification", classes=("ill", "well"))


def test_no_value_and_no_count_in_its_text() -> None:
    for text in (repr(DATA), str(DATA), f"{DATA}", f"{[DATA]}"):
        assert "4711" not in text
        assert "3" not in text
        assert "cardiology" in text


def test_good_records_have_no_problem() -> None:
    assert check(DATA, model=MODEL, public_records=3) == []
    empty = replace(DATA, train_x=DATA.train_x[:0], train_y=DATA.train_y[:0])
    assert check(empty, model=MODEL, public_records=3) == []


@pytest.mark.parametrize(
    ("change", "records"),
    [
        ({"train_y": np.array([0, 1, 2])}, 3),
        ({"train_y": np.array([0, -1, 1])}, 3),
        ({"train_y": np.array([0.0, 1.0, 1.0])}, 3),
        ({"train_y": np.array([0, 1])}, 3),
        ({"test_y": np.array([5])}, 3),
        ({"test_y": np.array([0, 0])}, 3),
        ({}, 2),
    ],
)
def test_each_problem_names_no_value(change: dict[str, np.ndarray], records: int) -> None:
    (problem,) = check(replace(DATA, **change), model=MODEL, public_records=records)
    assert problem.cure
    assert "4711" not in str(problem)


def test_all_problems_at_once() -> None:
    bad = replace(DATA, train_y=np.array([0, 9]), test_y=np.array([9]))
    assert len(check(bad, model=MODEL, public_records=1)) == 4

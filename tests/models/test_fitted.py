"""Constants that sites fit: the identity at first, in the tail, refused when implausible."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collegium.core.errors import InvalidInput
from collegium.core.layout import Layout
from collegium.core.plan import Plan
from collegium.core.plan_fitting import Calibration, Statistics
from collegium.models import registry
from collegium.models.adapters import read_vector, write_vector
from collegium.models.fitted import (
    KEPT,
    MEAN,
    OFFSET,
    SCALE,
    TEMPERATURE,
    attach,
    build_for,
    layouts,
    tail_fault,
    with_values,
)

MakePlan = Callable[..., Plan]
NAMES = (MEAN, SCALE, KEPT, TEMPERATURE, OFFSET)
FITTED = Layout.of({MEAN: (2,), SCALE: (2,), KEPT: (3,), TEMPERATURE: (1,), OFFSET: (2,)})
IDENTITY = np.array([0, 0, 1, 1, 1, 1, 1, 1, 0, 0], dtype=np.float32)


@pytest.fixture
def plan(make_plan: MakePlan) -> Plan:
    """A table of three numbers and one category, with everything to be fitted."""
    small = make_plan(2)
    model = replace(small.model, categories={"kind": ("a", "b")})
    return replace(
        small, model=model, statistics=Statistics(vocabulary=True), calibration=Calibration()
    )


def test_a_plan_without_these_tables_has_no_tail(make_plan: MakePlan) -> None:
    small = make_plan(2)
    trainable, fitted, whole = layouts(build_for(small), small)
    assert fitted.size == 0 and whole == trainable


def test_the_tail_comes_after_what_trains(plan: Plan) -> None:
    trainable, fitted, whole = layouts(build_for(plan), plan)
    assert whole.names == (*trainable.names, *NAMES) and fitted.names == NAMES
    assert (trainable.size, fitted.size, whole.size) == (12, 11, 23)
    bare = layouts(build_for(replace(plan, statistics=None, calibration=None)), plan=replace(
        plan, statistics=None, calibration=None))[0]  # fmt: skip
    assert trainable.digest == bare.digest  # updates and messages are the same as ever


def test_until_they_are_fitted_nothing_changes(plan: Plan) -> None:
    """Bit for bit, but for numbers beyond ``clip`` deviations, of which [-1, 1] has none."""
    bare, open_model = registry.build(plan.model), build_for(plan)
    x = torch.tensor([[0.3, -2.0, 0.9, 1.0], [0.1, 0.2, -0.5, -1.0]])
    for model in (bare, open_model):
        torch.nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    assert torch.equal(bare(x), open_model(x))


def test_attaching_twice_keeps_what_was_fitted(plan: Plan) -> None:
    model = build_for(plan)
    whole = layouts(model, plan)[2]
    vector = np.linspace(0.1, 1, whole.size, dtype=np.float32)
    write_vector(model, whole.names, vector)
    assert attach(model, plan) is model
    assert np.array_equal(read_vector(model, whole.names), vector)
    assert set(NAMES) <= set(model.state_dict())  # they travel in the model's file


def test_fitted_constants_are_applied(plan: Plan) -> None:
    model = build_for(plan)
    _, fitted, whole = layouts(model, plan)
    values = {MEAN: np.full(3, 0.5), SCALE: np.full(3, 0.25), KEPT: np.array([1.0, 0.0])}
    start, tail = np.split(read_vector(model, whole.names), [whole.size - fitted.size])
    write_vector(model, whole.names, np.concatenate([start, with_values(fitted, tail, values)]))
    inputs = model.preprocess(torch.tensor([[0.5, 1.0, -1.0, 1.0]]))
    assert inputs.tolist() == [[0.0, 2.0, -3.0, 0.0, 0.0]]  # -6 is cut off; b is not kept


def test_a_model_without_a_place_is_refused(plan: Plan) -> None:
    with pytest.raises(InvalidInput, match="no place"):
        attach(torch.nn.Linear(3, 2), plan)
    with pytest.raises(InvalidInput, match="no place"):
        attach(torch.nn.Linear(3, 2), replace(plan, statistics=None))


@pytest.mark.parametrize(
    ("place", "value", "wrong"),
    [
        (0, 1.5, MEAN),
        (2, 0.0, SCALE),
        (3, 0.001, SCALE),
        (2, 1.5, SCALE),
        (5, 0.5, KEPT),
        (7, 2.0, TEMPERATURE),
        (8, 0.1, OFFSET),
        (9, -1.0, OFFSET),
    ],
)
def test_what_statistics_cannot_give_is_named(place: int, value: float, wrong: str) -> None:
    tail = IDENTITY.copy()
    assert tail_fault(FITTED, tail, least_scale=0.01, calibrated=False) == ""
    tail[place] = value
    assert tail_fault(FITTED, tail, least_scale=0.01, calibrated=False) == wrong
    calibrated = tail_fault(FITTED, tail, least_scale=0.01, calibrated=True)
    assert calibrated == ("" if wrong in (TEMPERATURE, OFFSET) else wrong)


@pytest.mark.parametrize("value", [0.0, -1.0, 1e9])
def test_no_temperature_that_makes_no_sense(value: float) -> None:
    tail = IDENTITY.copy()
    tail[7] = value
    assert tail_fault(FITTED, tail, least_scale=0.01, calibrated=True) == TEMPERATURE


@given(mean=arrays(np.float64, 2, elements=st.floats(-1, 1)), kept=st.booleans())
def test_values_set_are_values_read(mean: Any, kept: bool) -> None:
    made = with_values(FITTED, IDENTITY, {MEAN: mean, KEPT: np.full(3, float(kept)), "other": mean})
    parts = FITTED.split(made)
    assert np.array_equal(parts[MEAN], mean.astype(np.float32))
    assert parts[KEPT].tolist() == [float(kept)] * 3
    assert parts[SCALE].tolist() == [1.0, 1.0]
    assert not np.signbit(made[made == 0]).any()
    assert tail_fault(FITTED, made, least_scale=0.01, calibrated=False) == ""

"""A site's records: what never starts, what contributes nothing, patients as one unit."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collegium.core.codec import codec
from collegium.core.errors import InvalidInput
from collegium.core.messages import Report, Update

Make = Callable[..., Any]


@pytest.mark.parametrize("fault", ["label", "negative", "lengths", "too many"])
def test_records_that_would_make_answers_depend_on_them_never_start(
    make_lab: Any, make_plan: Make, make_records: Make, fault: str
) -> None:
    """One bad label would raise only in the steps that sample it: a visible refusal."""
    plan = make_plan(1)
    (data,) = make_records(plan, count=24).values()
    labels = data.train_y.copy()
    if fault == "label":
        labels[3] = 2
    if fault == "negative":
        labels[3] = -1
    if fault == "lengths":
        labels = labels[:-1]
    data = replace(data, train_y=labels)
    if fault == "too many":
        (data,) = make_records(plan, count=41).values()
    with pytest.raises(InvalidInput):
        make_lab(plan, records={"s0": data})


def test_an_update_says_nothing_about_how_many_records_there_are(
    make_counter: Make, make_plan: Make, make_records: Make
) -> None:
    """24 or 25 records: the same header but for keys and times, and the same sizes."""
    plan, found = make_plan(1), []
    for count in (24, 25):
        counter = make_counter(plan, records=make_records(plan, count=count), folder=str(count))
        reply = counter.site.train(counter.ask())
        update = Update.open(reply, counter.public)
        found.append((replace(update, payload_sha256="", ledger_head=""), len(reply.payload)))
    assert found[0] == found[1]


@pytest.mark.parametrize("part", ["train_x", "test_x"])
def test_one_record_that_is_not_a_number(
    make_counter: Make, make_plan: Make, make_records: Make, part: str
) -> None:
    """No site opens with it; one that is there all the same, past that check, adds nothing.

    The update is that of the other records, and nobody is told.
    """
    plan = make_plan(1, privacy={"sampling_rate": 1.0})
    (data,) = make_records(plan).values()
    broken_values = getattr(data, part).copy()
    broken_values[3, 1] = np.nan
    with pytest.raises(InvalidInput, match="missing or infinite"):
        make_counter(plan, records={"s0": replace(data, **{part: broken_values})}, folder="n")
    data = replace(data, **{part: getattr(data, part).copy()})
    counter = make_counter(plan, records={"s0": data})
    getattr(data, part)[3, 1] = np.nan
    reply = counter.site.train(counter.ask(evaluate=True))
    assert counter.code(reply) == "ok"
    vector = codec("float32").decode(reply.payload, counter.layout.size)
    assert np.isfinite(vector).all()
    report = Report.open(counter.site.evaluate(counter.ask(round=0)), counter.public)
    assert all(np.isfinite(value) for value in report.metrics.values())
    trainer, spec = counter.site._trainer, replace(counter.site.spec, noise_multiplier=0.0)
    keep = np.arange(len(data.train_y)) != 3 if part == "train_x" else slice(None)
    others = replace(data, train_x=data.train_x[keep], train_y=data.train_y[keep])
    broken, whole = (
        trainer.train(counter.base(), records, spec, counter.site._noise, site="s0", round=1)
        for records in (counter.site._data, others)
    )
    np.testing.assert_allclose(broken, whole, atol=1e-7)


def test_an_empty_batch_is_answered_like_any_other(make_counter: Make, make_plan: Make) -> None:
    plan = make_plan(1, privacy={"sampling_rate": 1e-9, "epsilon": 1.0})
    counter = make_counter(plan)
    reply = counter.site.train(counter.ask())
    assert counter.code(reply) == "ok"
    assert codec("float32").decode(reply.payload, counter.layout.size).any()  # pure noise
    assert counter.kinds == ["genesis", "reserve", "commit"]


def test_a_site_of_twenty_records(make_counter: Make, make_plan: Make, make_records: Make) -> None:
    """The same noise as at a large site: its budget holds, its update says little."""
    plan = make_plan(1, public_records=20)
    counter = make_counter(plan, records=make_records(plan, count=20))
    for number in (1, 2, 3):
        asked = counter.ask(round=number, base=counter.base(0.01 * (number - 1)))
        assert counter.code(counter.site.train(asked)) == "ok"
    assert counter.ledger.epsilon() <= counter.ledger.budget.epsilon


# --- patients -------------------------------------------------------------------------------


def patients(data: Any, share: float = 0.5) -> Any:
    """The same records, this share of them of one patient, the others of one each."""
    owners = np.arange(len(data.train_y))
    owners[: int(len(owners) * share)] = 0
    return replace(data, train_units=owners, test_units=1000 + np.arange(len(data.test_y)))


def test_a_patient_with_half_of_all_rows_is_one_contribution(
    make_counter: Make, make_plan: Make, make_records: Make
) -> None:
    """Full batches without noise: with and without that patient the sum moves by at most C."""
    plan = make_plan(1, privacy={"unit": "patient", "sampling_rate": 1.0, "clip_norm": 0.3})
    (data,) = (patients(data) for data in make_records(plan).values())
    counter = make_counter(plan, records={"s0": data})
    assert counter.code(counter.site.train(counter.ask())) == "ok"
    assert counter.ledger.entries()[1].spec.unit == "patient"
    trainer, spec = counter.site._trainer, replace(counter.site.spec, noise_multiplier=0.0)
    noise, base = counter.site._noise, counter.base()
    less = data.train_units != 0
    without = replace(
        data,
        train_x=data.train_x[less],
        train_y=data.train_y[less],
        train_units=data.train_units[less],
    )
    both = [
        trainer.train(base, records, spec, noise, site="s0", round=1).astype(np.float64)
        for records in (data, without)
    ]
    moved = float(np.linalg.norm(both[0] - both[1])) * spec.normaliser
    assert 0 < moved <= 0.3 * (1 + 1e-5)


@pytest.mark.parametrize("fault", ["unnamed", "in both parts", "lengths"])
def test_patients_must_be_named_and_kept_apart(
    make_lab: Any, make_plan: Make, make_records: Make, fault: str
) -> None:
    plan = make_plan(1, privacy={"unit": "patient"})
    (data,) = (patients(data) for data in make_records(plan).values())
    if fault == "unnamed":
        data = replace(data, train_units=None)
    if fault == "in both parts":
        data = replace(data, test_units=np.zeros(len(data.test_y), dtype=int))
    if fault == "lengths":
        data = replace(data, test_units=data.test_units[:-1])
    with pytest.raises(InvalidInput):
        make_lab(plan, records={"s0": data})


def test_the_public_size_counts_patients(
    make_lab: Any, make_plan: Make, make_records: Make
) -> None:
    """60 records of 31 patients fit into a public size of 40."""
    plan = make_plan(1, privacy={"unit": "patient"})
    (data,) = (patients(data) for data in make_records(plan, count=60).values())
    make_lab(plan, records={"s0": data})

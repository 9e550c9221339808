"""Figures over records and over sites, by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from collegium.client.train import Trainer
from collegium.core.plan import Plan
from collegium.data.public import PublicSet
from collegium.data.site_data import SiteData
from collegium.models import registry
from collegium.models.evaluate import logits
from collegium.simulations.figures import LOOK, Answer, figures, looked_at, majority, measure
from collegium.simulations.records import Records

MakePlan = Callable[..., Plan]


def public(y: list[int] | None, count: int = 3) -> PublicSet:
    x = np.zeros((count, 3), dtype=np.float32)
    return PublicSet(
        name="t", origin="public", x=x, y=None if y is None else np.array(y, dtype=np.int64)
    )


def site(train: list[int], test: list[int]) -> SiteData:
    return SiteData(
        asset="a",
        train_x=np.zeros((len(train), 3), dtype=np.float32),
        train_y=np.array(train),
        test_x=np.zeros((len(test), 3), dtype=np.float32),
        test_y=np.array(test),
    )


def answer(plan: Plan) -> Answer:
    model = registry.build(plan.model)
    return lambda x: logits(model, x)


def records(test: PublicSet, sites: list[str] | None = None, **by_site: SiteData) -> Records:
    names = None if sites is None else np.array(sites)
    return Records(by_site=by_site, test=test, test_sites=names)


def test_nothing_is_told_without_labels_or_records(make_plan: MakePlan) -> None:
    plan = make_plan()
    trainer = Trainer(registry.build(plan.model), plan)
    for test in (public(None), public([], 0)):
        assert measure(plan, trainer, trainer.open_vector, records(test)) == {}


def test_each_site_counts_as_much_as_any_other(make_plan: MakePlan) -> None:
    plan = make_plan()  # a zero model answers class 0
    test = public([0, 0, 0, 1], 4)
    found = figures(plan, answer(plan), records(test, ["large", "large", "large", "small"]))
    assert found.metrics["accuracy"] == pytest.approx(0.75)
    assert found.metrics["macro_accuracy"] == pytest.approx(0.5)
    assert found.by_site["large"]["accuracy"] == 1.0
    assert found.by_site["small"]["accuracy"] == 0.0


def test_without_sites_there_is_no_mean_over_them(make_plan: MakePlan) -> None:
    plan = make_plan()
    found = figures(plan, answer(plan), records(public([0, 0, 1])))
    assert "macro_accuracy" not in found.metrics
    assert found.by_site == {}


def test_the_majority_is_of_the_training_part(make_plan: MakePlan) -> None:
    plan = make_plan()
    by_site: Mapping[str, SiteData] = {
        "a": site([0, 0, 1], [0, 1, 1, 1]),
        "b": site([1, 1], [1, 1]),
        "nothing": site([], [1]),
    }
    test = public([0] * 7, 7)
    found = majority(plan, records(test, ["a"] * 7, **by_site))
    assert found is not None
    assert found["by_site"] == {"a": 0.25, "b": 1.0}
    assert found["macro_accuracy"] == pytest.approx(0.625)
    assert found["accuracy"] == pytest.approx(3 / 6)


def test_no_majority_without_classes_or_sites(make_plan: MakePlan) -> None:
    plan = make_plan()
    test = public([0], 1)
    assert majority(plan, records(test, a=site([0], [0]))) is None
    other = replace(
        plan, model=replace(plan.model, task="regression", classes=(), target=(0.0, 1.0))
    )
    assert majority(other, records(test, ["a"], a=site([0], [0]))) is None


def test_a_large_test_part_is_looked_at_in_part_between_rounds() -> None:
    count = 2 * LOOK + 1
    whole = records(public([0, 1] * LOOK + [0], count), ["a"] * LOOK + ["b"] * (LOOK + 1))
    assert looked_at(whole, cheap=True) is whole
    part = looked_at(whole, cheap=False)
    assert len(part.test) == LOOK
    assert part.test_sites is not None and set(part.test_sites) == {"a", "b"}
    small = records(public([0, 1], 2))
    assert looked_at(small, cheap=False) is small

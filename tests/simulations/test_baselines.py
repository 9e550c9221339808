"""Comparisons without a federation: the same training, marked, and on nobody's ledger."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collegium.client.train import Trainer
from collegium.core.plan import Plan
from collegium.data.public import PublicSet
from collegium.models import registry
from collegium.simulations.baselines import NOTE, Baselines, measure, run_baselines
from collegium.simulations.records import Records

MakePlan = Callable[..., Plan]


def records_of(plan: Plan, make_records: Any) -> Records:
    by_site = make_records(plan, count=24, test=6)
    x = np.random.default_rng(0).uniform(-1, 1, (200, 3)).astype(np.float32)
    test = PublicSet(name="t", origin="public", x=x, y=(x[:, 0] > 0).astype(np.int64))
    return Records(by_site=by_site, test=test)


def test_local_and_pooled(make_lab: Any, make_plan: MakePlan, make_records: Any) -> None:
    plan = make_plan(3, rounds=30, privacy={"epsilon": 3.0})
    lab = make_lab(plan)
    heads = {name: ledger.head for name, ledger in lab.consortium.ledgers.items()}
    found = run_baselines(
        plan, records_of(plan, make_records), lab.consortium.specs,
        lambda: registry.build(plan.model), workers=2, prepare=lambda: None,
    )  # fmt: skip
    assert set(found.local) == {"s0", "s1", "s2"}
    assert found.pooled["accuracy"] > 0.9  # without noise the task is easy
    assert {name: ledger.head for name, ledger in lab.consortium.ledgers.items()} == heads
    again = run_baselines(
        plan, records_of(plan, make_records), lab.consortium.specs,
        lambda: registry.build(plan.model), workers=1, prepare=lambda: None,
    )  # fmt: skip
    assert again == found  # threads do not show


def test_entries_by_hand() -> None:
    found = Baselines(
        local={"a": {"accuracy": 0.5, "auc": 0.75}, "b": {"accuracy": 1.0}},
        pooled={"accuracy": 0.9},
    ).to_dict()
    assert found["local"]["accuracy_mean"] == 0.75
    assert found["local"]["metrics_mean"] == {"accuracy": 0.75, "auc": 0.75}
    assert found["local"]["note"] == found["pooled"]["note"] == NOTE
    assert "not a release" in NOTE
    assert found["pooled"]["accuracy"] == 0.9


def test_measure_without_labels_or_records(make_plan: MakePlan) -> None:
    plan = make_plan()
    trainer = Trainer(registry.build(plan.model), plan)
    x = np.zeros((3, 3), dtype=np.float32)
    for public in (
        PublicSet(name="t", origin="public", x=x, y=None),
        PublicSet(name="t", origin="public", x=x[:0], y=np.zeros(0, dtype=np.int64)),
    ):
        assert measure(plan, trainer, trainer.open_vector, public) == {}
    labelled = PublicSet(name="t", origin="public", x=x, y=np.array([0, 1, 0]))
    assert measure(plan, trainer, trainer.open_vector, labelled)["accuracy"] == pytest.approx(2 / 3)

"""Comparisons without a federation: the same training, marked, and on nobody's ledger."""

from collections.abc import Callable
from typing import Any

import numpy as np

from collegium.core.plan import Plan
from collegium.data.public import PublicSet
from collegium.models import registry
from collegium.simulations.baselines import NOTE, Baselines, run_baselines
from collegium.simulations.figures import Figures
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
    assert found.pooled.metrics["accuracy"] > 0.9  # without noise the task is easy
    assert {name: ledger.head for name, ledger in lab.consortium.ledgers.items()} == heads
    again = run_baselines(
        plan, records_of(plan, make_records), lab.consortium.specs,
        lambda: registry.build(plan.model), workers=1, prepare=lambda: None,
    )  # fmt: skip
    assert again == found  # threads do not show


def test_entries_by_hand() -> None:
    found = Baselines(
        local={"a": {"accuracy": 0.5, "auc": 0.75}, "b": {"accuracy": 1.0}},
        own={"a": {"accuracy": 1.0}, "b": {}},
        pooled=Figures(metrics={"accuracy": 0.9}, by_site={}),
    ).to_dict()
    assert found["local"]["accuracy_mean"] == 0.75
    assert found["local"]["metrics_mean"] == {"accuracy": 0.75, "auc": 0.75}
    assert found["local"]["note"] == found["pooled"]["note"] == NOTE
    assert "not a release" in NOTE
    assert found["pooled"]["accuracy"] == 0.9
    assert found["local"]["own_metrics_mean"] == {"accuracy": 1.0}
    assert found["majority"] is None

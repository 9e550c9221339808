"""What the same records give without a federation: comparison only, never a release.

Nothing here reaches a site's ledger or leaves the simulator; every figure is marked so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..client.train import Trainer, units_of
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..data.public import PublicSet
from ..data.site_data import SiteData
from ..models.evaluate import evaluate
from ..models.tasks import task
from ..privacy.noise import SeededNoise
from ..server.drive import released_vector
from ..strategies.catalog import strategy_for
from .consortium import ModelFactory
from .records import Records, simulation_seed

NOTE = "not a release: comparison on scratch accounting, simulation only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """Metrics on the global test part of each local model and of the pooled one."""

    local: Mapping[str, Mapping[str, float]]
    pooled: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return the ``local`` and ``pooled`` entries of result.json."""
        names = sorted({name for metrics in self.local.values() for name in metrics})
        means = {
            name: fmean(found[name] for found in self.local.values() if name in found)
            for name in names
        }
        return {
            "local": {
                "note": NOTE,
                "accuracy_mean": means.get("accuracy"),
                "metrics_mean": means,
                "by_site": {site: dict(found) for site, found in self.local.items()},
            },
            "pooled": {
                "note": NOTE,
                "accuracy": self.pooled.get("accuracy"),
                "metrics": dict(self.pooled),
            },
        }


def run_baselines(
    plan: Plan,
    records: Records,
    specs: Mapping[str, MechanismSpec],
    factory: ModelFactory,
    *,
    workers: int,
    prepare: Callable[[], None],
) -> Baselines:
    """Train each site alone with the same privacy, and all records together without any.

    The same rounds, strategy and sampling rate; a site alone divides by its own expected batch
    (a federation's normaliser would be wrong for it), which only a comparison may do.
    """

    def alone(name: str) -> dict[str, float]:
        data = records.by_site[name]
        spec = replace(
            specs[name],
            normaliser=max(1.0, specs[name].sampling_rate * len(units_of(specs[name], data))),
        )
        return _train_and_measure(
            plan, data, spec, label=f"local:{name}", test=records.test, factory=factory
        )

    def pooled() -> dict[str, float]:
        data = _pool(list(records.by_site.values()))
        any_spec = next(iter(specs.values()))
        spec = replace(
            any_spec,
            noise_multiplier=0.0,
            normaliser=any_spec.sampling_rate * len(units_of(any_spec, data)),
        )
        return _train_and_measure(
            plan, data, spec, label="pooled", test=records.test, factory=factory
        )

    pool = ThreadPoolExecutor(workers, initializer=prepare)
    try:
        all_records = pool.submit(pooled)
        each = {name: pool.submit(alone, name) for name in specs}
        return Baselines(
            local={name: job.result() for name, job in each.items()}, pooled=all_records.result()
        )
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for what has not begun


def _train_and_measure(
    plan: Plan,
    data: SiteData,
    spec: MechanismSpec,
    *,
    label: str,
    test: PublicSet,
    factory: ModelFactory,
) -> dict[str, float]:
    trainer, strategy = Trainer(factory(), plan), strategy_for(plan)
    noise = SeededNoise(simulation_seed(plan))
    state, vector = strategy.init(trainer.layout), trainer.open_vector
    for number in range(1, plan.rounds.count + 1):
        update = trainer.train(vector, data, spec, noise, site=label, round=number)
        vector, state = strategy.finish(strategy.fold(state, update, 1.0), vector)
    return measure(plan, trainer, released_vector(vector, state), test)


def measure(plan: Plan, trainer: Trainer, vector: Vector, test: PublicSet) -> dict[str, float]:
    """Return the metrics of ``vector`` (d,) on a labelled public set."""
    if test.y is None or len(test) == 0:
        return {}
    return evaluate(trainer.load(vector), task(plan.model), test.x, test.y)


def _pool(parts: list[SiteData]) -> SiteData:
    return SiteData(
        asset="pooled",
        train_x=np.concatenate([part.train_x for part in parts]),
        train_y=np.concatenate([part.train_y for part in parts]),
        test_x=np.concatenate([part.test_x for part in parts]),
        test_y=np.concatenate([part.test_y for part in parts]),
        train_units=_pool_units([part.train_units for part in parts]),
        test_units=_pool_units([part.test_units for part in parts]),
    )


def _pool_units(owners: list[NDArray[Any] | None]) -> NDArray[Any] | None:
    """Return patients of all sites; the same name at two sites is two patients."""
    named = [
        [f"{place}/{name}" for name in part]
        for place, part in enumerate(owners)
        if part is not None
    ]
    return np.concatenate([np.array(part) for part in named]) if len(named) == len(owners) else None

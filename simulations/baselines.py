"""What the same records give without a federation: comparison only, never a release.

Nothing here reaches a site's ledger or leaves the simulator; every figure is marked so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..client.train import Trainer, units_of
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..data.site_data import SiteData
from ..models.resident import Features
from ..privacy.noise import SeededNoise
from ..server.drive import released_vector
from ..server.task import finish
from ..strategies.catalog import strategy_for
from .consortium import ModelFactory
from .figures import Figures, figures, majority, measure
from .fitting import with_calibration, with_statistics
from .records import Records, simulation_seed

NOTE = "not a release: comparison on scratch accounting, simulation only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Baselines:
    """Figures of each local model and of the pooled one, and of answering without any model.

    ``local`` are on the global test part; ``own`` those of each local model on its own site's
    test records, which the site could reach by itself.
    """

    local: Mapping[str, Mapping[str, float]]
    own: Mapping[str, Mapping[str, float]]
    pooled: Figures
    majority: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the ``local``, ``pooled`` and ``majority`` entries of result.json."""
        means = _means(self.local)
        return {
            "local": {
                "note": NOTE,
                "accuracy_mean": means.get("accuracy"),
                "metrics_mean": means,
                "by_site": {site: dict(found) for site, found in self.local.items()},
                "own_metrics_mean": _means(self.own),
                "own_by_site": {site: dict(found) for site, found in self.own.items()},
            },
            "pooled": {
                "note": NOTE,
                "accuracy": self.pooled.metrics.get("accuracy"),
                "metrics": dict(self.pooled.metrics),
                "by_site": self.pooled.by_site,
            },
            "majority": None if self.majority is None else {"note": NOTE, **self.majority},
        }


def _means(by_site: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    names = sorted({name for metrics in by_site.values() for name in metrics})
    return {
        name: fmean(found[name] for found in by_site.values() if name in found) for name in names
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

    train = partial(_train, plan, factory=factory, features=records.features)

    def alone(name: str) -> tuple[dict[str, float], dict[str, float]]:
        data = records.by_site[name]
        spec = replace(
            specs[name],
            normaliser=max(1.0, specs[name].sampling_rate * len(units_of(specs[name], data))),
        )
        trainer, vector = train(data, spec, label=f"local:{name}", fitted_on={name: data})
        own = trainer.evaluate(vector, data) if records.test_sites is not None else {}
        return measure(plan, trainer, vector, records), own

    def pooled() -> Figures:
        data = _pool(list(records.by_site.values()))
        any_spec = next(iter(specs.values()))
        spec = replace(
            any_spec,
            noise_multiplier=0.0,
            normaliser=any_spec.sampling_rate * len(units_of(any_spec, data)),
        )
        trainer, vector = train(data, spec, label="pooled", fitted_on=records.by_site)
        return figures(plan, lambda x: trainer.outputs(vector, x), records)

    pool = ThreadPoolExecutor(workers, initializer=prepare)
    try:
        all_records = pool.submit(pooled)
        each = {name: pool.submit(alone, name) for name in specs}
        found = {name: job.result() for name, job in each.items()}
        return Baselines(
            local={name: on_all for name, (on_all, _) in found.items()},
            own={name: own for name, (_, own) in found.items()},
            pooled=all_records.result(),
            majority=majority(plan, records),
        )
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for what has not begun


def _train(
    plan: Plan,
    data: SiteData,
    spec: MechanismSpec,
    *,
    label: str,
    factory: ModelFactory,
    fitted_on: Mapping[str, SiteData],
    features: Features,
) -> tuple[Trainer, Vector]:
    """Return a model trained on one set of records alone: its trainer, and the released vector.

    Common statistics and calibration are those of ``fitted_on``, noised where the training is.
    """
    trainer = Trainer(factory(), plan, features=features)
    strategy = strategy_for(plan)
    noise = SeededNoise(simulation_seed(plan))
    fitting = noise if spec.noise_multiplier > 0 else None
    vector = with_statistics(plan, trainer, fitted_on, noise=fitting, label=label)
    state, size = strategy.init(trainer.layout), trainer.layout.size
    for number in range(1, plan.rounds.count + 1):
        update = trainer.train(vector, data, spec, noise, site=label, round=number)
        vector, state = finish(strategy, strategy.fold(state, update, 1.0), vector, size=size)
    released = released_vector(vector, state)
    return trainer, with_calibration(plan, trainer, released, fitted_on, noise=fitting, label=label)


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

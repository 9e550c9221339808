"""Sites from a split data set: keys, ledgers, spools and models of a whole consortium."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from ..client.policy import Policy
from ..client.site import Identity, Site
from ..client.spool import Spool
from ..client.train import Trainer
from ..core.errors import InvalidInput
from ..core.layout import Layout, Vector
from ..core.mechanism import Budget, MechanismSpec
from ..core.plan import Plan, Simulation
from ..core.signing import load_or_create
from ..data.datasets import load
from ..data.public import PublicSet
from ..data.site_data import SiteData
from ..data.split import dirichlet, holdout, iid
from ..privacy.bounds import update_norm_bound
from ..privacy.derive import mechanism, noise_multiplier
from ..privacy.ledger import Ledger
from ..privacy.noise import SeededNoise
from ..server.admission import Member
from ..strategies.catalog import step_bound

GLOBAL_TEST_SHARE = 0.2
SITE_TEST_SHARE = 0.1

ModelFactory = Callable[[], nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Every site's records and the global test part, declared public for this simulation."""

    by_site: Mapping[str, SiteData]
    test: PublicSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Consortium:
    """A whole consortium in one process: what the coordinator knows, and the sites."""

    sites: tuple[Site, ...]
    ledgers: Mapping[str, Ledger]
    specs: Mapping[str, MechanismSpec]
    members: Mapping[str, Member]
    layout: Layout
    opened: Vector
    key: Ed25519PrivateKey

    def close(self) -> None:
        """Close every ledger."""
        for ledger in self.ledgers.values():
            ledger.close()


def split_records(plan: Plan) -> Records:
    """Return the plan's simulated data set as sites and a global test part, by its seed.

    Raises ``InvalidInput`` when the roster's public sizes cannot hold the data set or its
    classes are not the plan's.
    """
    simulation = simulation_of(plan)
    found = load(simulation.dataset)
    if found.classes != plan.model.classes:
        raise InvalidInput(
            f"{found.name} has the classes {', '.join(found.classes)}",
            why="the plan's [model] classes are others",
            cure="write the data set's classes into the plan",
        )
    rng = np.random.default_rng([0xC011, simulation.seed])
    kept, test = holdout(found.y, GLOBAL_TEST_SHARE, rng)
    capacities = [site.public_records for site in plan.sites]
    kind, _, alpha = simulation.split.partition(":")
    try:
        parts = (
            dirichlet(found.y[kept], capacities, float(alpha), rng)
            if kind == "dirichlet"
            else iid(found.y[kept], capacities, rng)
        )
    except ValueError as error:
        raise InvalidInput(
            f"the roster is too small for {found.name}",
            why=str(error),
            cure="raise the sites' public_records",
        ) from None
    by_site: dict[str, SiteData] = {}
    for site, part in zip(plan.sites, parts, strict=True):
        members = kept[part]
        train, own_test = holdout(found.y[members], SITE_TEST_SHARE, rng)
        by_site[site.name] = SiteData(
            asset=f"{found.name}/{site.name}",
            train_x=found.x[members[train]],
            train_y=found.y[members[train]],
            test_x=found.x[members[own_test]],
            test_y=found.y[members[own_test]],
        )
    public = PublicSet(name=f"{found.name}/test", origin="public", x=found.x[test], y=found.y[test])
    return Records(by_site=by_site, test=public)


def simulation_of(plan: Plan) -> Simulation:
    """Return the plan's ``[simulation]`` table; raises ``InvalidInput`` without one."""
    if plan.simulation is None:
        raise InvalidInput(
            "this plan has no [simulation] table",
            why="the simulator needs a data set, a split and a seed",
            cure="add [simulation] with dataset, split and seed",
        )
    return plan.simulation


def assemble(
    plan: Plan, records: Mapping[str, SiteData], factory: ModelFactory, folder: Path
) -> Consortium:
    """Return the consortium; its keys, ledgers and spools are made or reopened in ``folder``."""
    keys = folder / "keys" / "private"
    coordinator = load_or_create(keys / "coordinator.pem")
    sigma = noise_multiplier(plan)
    sites: list[Site] = []
    ledgers: dict[str, Ledger] = {}
    specs: dict[str, MechanismSpec] = {}
    members: dict[str, Member] = {}
    layout, opened = Layout.of({}), np.zeros(0, dtype=np.float32)
    for ref in plan.sites:
        trainer = Trainer(factory(), plan)
        layout, opened = trainer.layout, trainer.open_vector
        spec = mechanism(plan, ref, noise_multiplier=sigma, trainable_digest=trainer.layout.digest)
        key, data = load_or_create(keys / f"{ref.name}.pem"), records[ref.name]
        policy = _policy(plan)
        ledger = Ledger(folder / "ledgers" / f"{ref.name}.sqlite", data.asset, policy.budget, key)
        bound = update_norm_bound(
            spec,
            size=layout.size,
            public_records=ref.public_records,
            learning_rate=plan.rounds.local_learning_rate,
        )
        sites.append(
            Site(
                identity=Identity(name=ref.name, key=key, coordinator=coordinator.public_key()),
                plan=plan,
                spec=spec,
                data=data,
                trainer=trainer,
                policy=policy,
                ledger=ledger,
                spool=Spool(folder / "sites" / ref.name / "spool"),
                noise=SeededNoise(simulation_seed(plan)),
                step_bound=step_bound(plan, update_norm=bound, size=layout.size),
            )
        )
        ledgers[ref.name], specs[ref.name] = ledger, spec
        members[ref.name] = Member(
            public_key=key.public_key(),
            spec=spec,
            public_records=ref.public_records,
            weight=ref.fold_weight,
        )
    return Consortium(
        sites=tuple(sites),
        ledgers=ledgers,
        specs=specs,
        members=members,
        layout=layout,
        opened=opened,
        key=coordinator,
    )


def simulation_seed(plan: Plan) -> int:
    """Return the seed of noise and split, 0 when records were passed in without one."""
    return plan.simulation.seed if plan.simulation else 0


def _policy(plan: Plan) -> Policy:
    """A simulated site's policy: exactly what the plan asks for, and not a step more."""
    privacy = plan.privacy
    return Policy(
        budget=Budget(
            epsilon=privacy.epsilon,
            delta=privacy.delta,
            unit=privacy.unit,
            relation=privacy.relation,
        ),
        max_steps=plan.rounds.count * plan.rounds.local_steps,
        max_sampling_rate=privacy.sampling_rate,
        max_clip_norm=privacy.clip_norm,
        private=privacy.enabled,
    )

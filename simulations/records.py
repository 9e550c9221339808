"""A simulation's records: every site's, and the public test part, as ``[simulation]`` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..client.policy import Policy
from ..core.errors import InvalidInput
from ..core.plan import Plan, Simulation
from ..data.datasets import load
from ..data.public import PublicSet
from ..data.site_data import SiteData
from ..data.split import dirichlet, holdout, iid
from ..models.resident import Features

GLOBAL_TEST_SHARE = 0.2
SITE_TEST_SHARE = 0.1
FILES = "files"

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Every site's records and the global test part, declared public for this simulation.

    ``test_sites`` (n,) names the site that each test record belongs to, None where they belong
    to none; ``policies`` are those of the sites' own files, None without such files;
    ``features`` is what the open model's frozen trunk makes of all of these records; ``public``
    is the share of the data set that no site got, without labels, None where the plan sets none
    aside.
    """

    by_site: Mapping[str, SiteData]
    test: PublicSet
    test_sites: NDArray[np.str_] | None = None
    policies: Mapping[str, Policy] | None = None
    features: Features = field(default_factory=Features, compare=False)
    public: PublicSet | None = None


def split_records(plan: Plan) -> Records:
    """Return the plan's simulated records as sites and a global test part, by its seed.

    Raises ``InvalidInput`` when the roster's public sizes cannot hold the data set or its
    classes are not the plan's, and what the readers raise for the sites' own files.
    """
    simulation = simulation_of(plan)
    if simulation.dataset == FILES:
        from .site_files import records_of_files

        return records_of_files(plan)
    found = load(simulation.dataset)
    if found.classes != plan.model.classes:
        raise InvalidInput(
            f"{found.name} has the classes {', '.join(found.classes)}",
            why="the plan's [model] classes are others",
            cure="write the data set's classes into the plan",
        )
    rng = np.random.default_rng([0xC011, simulation.seed])
    kept, test = holdout(found.y, GLOBAL_TEST_SHARE, rng)
    kept, aside = set_aside(plan, kept, found.y[kept])
    parts = deal(plan, found.y[kept], rng, source=found.name)
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
    return Records(by_site=by_site, test=public, public=aside_set(found.name, found.x[aside]))


def set_aside(plan: Plan, rows: Indices, labels: NDArray[Any]) -> tuple[Indices, Indices]:
    """Return which rows (n,) with these labels (n,) the sites get, and which nobody's are.

    Its own random stream: a plan that sets nothing aside deals as it always did.
    """
    simulation = simulation_of(plan)
    if not simulation.public_share:
        return rows, rows[:0]
    rng = np.random.default_rng([0x9B11C, simulation.seed])
    if labels.ndim == 1 and labels.dtype.kind == "i":
        kept, aside = holdout(labels, simulation.public_share, rng)
    else:
        order = rng.permutation(len(rows))
        aside, kept = np.split(order, [int(len(rows) * simulation.public_share)])
    return rows[np.sort(kept)], rows[np.sort(aside)]


def aside_set(source: str, x: NDArray[Any]) -> PublicSet | None:
    """Return what was set aside as a public set without labels, None where nothing was."""
    return PublicSet(name=f"{source}/public", origin="public", x=x) if len(x) else None


def deal(
    plan: Plan,
    labels: NDArray[Any],
    rng: np.random.Generator,
    *,
    source: str,
    sizes: Indices | None = None,
) -> Sequence[Indices]:
    """Return each site's part of records with these labels (n, ...), as ``split`` says.

    ``sizes`` (n,) is how much of a site's public size each takes, 1 by default. Raises
    ``InvalidInput`` when the roster is too small, or labels are no classes to be skewed.
    """
    split = simulation_of(plan).split
    capacities = [site.public_records for site in plan.sites]
    kind, _, alpha = split.partition(":")
    if kind == "dirichlet" and plan.model.task != "classification":
        raise InvalidInput(
            f"[simulation] split = '{split}' skews classes",
            why=f"the task {plan.model.task} has no class per record",
            cure="write split = 'iid'",
        )
    try:
        if kind == "dirichlet":
            return dirichlet(labels, capacities, float(alpha), rng, sizes=sizes)
        return iid(labels, capacities, rng, sizes=sizes)
    except ValueError as error:
        raise InvalidInput(
            f"the roster is too small for {source}",
            why=str(error),
            cure="raise the sites' public_records",
        ) from None


def simulation_of(plan: Plan) -> Simulation:
    """Return the plan's ``[simulation]`` table; raises ``InvalidInput`` without one."""
    if plan.simulation is None:
        raise InvalidInput(
            "this plan has no [simulation] table",
            why="the simulator needs a data set, a split and a seed",
            cure="add [simulation] with dataset, split and seed",
        )
    return plan.simulation


def simulation_seed(plan: Plan) -> int:
    """Return the seed of noise and split, 0 when records were passed in without one."""
    return plan.simulation.seed if plan.simulation else 0

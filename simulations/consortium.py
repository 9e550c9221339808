"""Sites from a split data set: keys, ledgers, spools and models of a whole consortium."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from ..client.evidence import Evidence
from ..client.identity import Identity
from ..client.policy import Policy, plugins_of
from ..client.reach import round_reach
from ..client.site import Site
from ..client.spool import Spool
from ..client.train import Trainer
from ..client.words import export_of
from ..core.digest import sha256_hex
from ..core.errors import InvalidInput
from ..core.layout import Layout, Vector
from ..core.mechanism import Budget, MechanismSpec
from ..core.plan import Plan, SiteRef
from ..core.signing import load_or_create
from ..data.site_data import SiteData
from ..models.resident import Features
from ..privacy.derive import mechanism, noise_multiplier
from ..privacy.fingerprint import Register
from ..privacy.ledger import Ledger
from ..privacy.ledger_files import open_for_records
from ..privacy.noise import SeededNoise
from ..server.admission import Member
from .records import simulation_seed

KEYS = Path("keys") / "private"

ModelFactory = Callable[[], nn.Module]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consortium:
    """A whole consortium in one process: what the coordinator knows, and the sites.

    ``layout`` is that of what trains (d), ``fitted`` that of the constants that the sites fit
    together (e), ``whole`` that of both, which ``opened`` (d + e,) has.
    """

    sites: tuple[Site, ...]
    ledgers: Mapping[str, Ledger]
    specs: Mapping[str, MechanismSpec]
    members: Mapping[str, Member]
    layout: Layout
    fitted: Layout
    whole: Layout
    opened: Vector
    key: Ed25519PrivateKey

    def close(self) -> None:
        """Close every ledger."""
        for ledger in self.ledgers.values():
            ledger.close()


def assemble(
    plan: Plan,
    records: Mapping[str, SiteData],
    factory: ModelFactory,
    folder: Path,
    *,
    policies: Mapping[str, Policy] | None = None,
    features: Features | None = None,
    own_strategy: bool = False,
) -> Consortium:
    """Return the consortium; its keys, ledgers and spools are made or reopened in ``folder``.

    ``policies`` are the sites' own words; without them each allows what the plan asks for. With
    ``own_strategy`` nobody knows how far a round may lead, so sites do not bound it. Raises
    ``InvalidInput`` when a site has no records or ``factory`` no one open model.
    """
    if missing := [site.name for site in plan.sites if site.name not in records]:
        raise InvalidInput(
            f"there are no records for {', '.join(missing)}",
            why="every site of the roster takes part in a simulation",
            cure="pass records for every site, or take it off the roster",
        )
    coordinator = load_or_create(folder / KEYS / "coordinator.pem")
    trainers = {
        ref.name: Trainer(model, plan, features=features)
        for ref, model in _same_models(plan, factory)
    }
    first = trainers[plan.sites[0].name]
    layout = first.layout
    sigma = noise_multiplier(plan)
    specs = {
        ref.name: mechanism(plan, ref, noise_multiplier=sigma, trainable_digest=layout.digest)
        for ref in plan.sites
    }
    reach = math.inf if own_strategy else round_reach(plan, specs, size=layout.size)
    sites = tuple(
        _site(
            plan,
            ref,
            folder,
            spec=specs[ref.name],
            data=records[ref.name],
            trainer=trainers[ref.name],
            coordinator=coordinator,
            step_bound=reach,
            policy=(policies or {}).get(ref.name) or _policy(plan),
        )
        for ref in plan.sites
    )
    return Consortium(
        sites=sites,
        ledgers={site.name: site.ledger for site in sites},
        specs=specs,
        members={site.name: _member(plan.site(site.name), site) for site in sites},
        layout=layout,
        fitted=first.fitted,
        whole=first.whole,
        opened=first.open_vector,
        key=coordinator,
    )


def _same_models(plan: Plan, factory: ModelFactory) -> Iterator[tuple[SiteRef, nn.Module]]:
    """Yield each site's own copy of the open model; sites that hold different ones never agree."""
    first = ""
    for ref in plan.sites:
        model = factory()
        values = [value.detach().cpu().numpy().tobytes() for value in model.state_dict().values()]
        digest = sha256_hex(*values)
        first = first or digest
        if digest != first:
            raise InvalidInput(
                "the model function does not return the same model twice",
                why="every site starts from one open model, and its round 1 must equal it",
                cure="set torch.manual_seed in the function, or load weights there",
            )
        yield ref, model


def _site(
    plan: Plan,
    ref: SiteRef,
    folder: Path,
    *,
    spec: MechanismSpec,
    data: SiteData,
    trainer: Trainer,
    coordinator: Ed25519PrivateKey,
    step_bound: float,
    policy: Policy,
) -> Site:
    own = folder / "sites" / ref.name
    key = load_or_create(folder / KEYS / f"{ref.name}.pem")
    return Site(
        identity=Identity(name=ref.name, key=key, coordinator=coordinator.public_key()),
        plan=plan,
        spec=spec,
        data=data,
        trainer=trainer,
        policy=policy,
        ledger=open_ledger(folder, ref.name, data, policy.budget, key),
        spool=Spool(own / "spool"),
        noise=SeededNoise(simulation_seed(plan)),
        evidence=_evidence(own, trainer.layout) if plan.privacy.enabled else None,
        step_bound=step_bound,
    )


def _evidence(own: Path, layout: Layout) -> Evidence:
    return Evidence(
        own / "evidence.jsonl", sizes=tuple(math.prod(shape) for shape in layout.shapes)
    )


def open_ledger(
    folder: Path, site: str, data: SiteData, budget: Budget, key: Ed25519PrivateKey
) -> Ledger:
    """Open a site's ledger as a real site does: for these records alone, with an anchor."""
    own = folder / "sites" / site
    register = Register(own / "records.sqlite")
    return open_for_records(
        folder / "ledgers" / f"{site}.sqlite",
        data.asset,
        budget,
        key,
        register=register,
        export=export_of(data, register.salt),
        anchor=own / "ledger.anchor",
    )


def _member(ref: SiteRef, site: Site) -> Member:
    return Member(
        public_key=site.public_key,
        spec=site.spec,
        public_records=ref.public_records,
        weight=ref.fold_weight,
    )


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
        plugins=tuple(plugins_of(plan)),  # on one's own machine, what is installed may run
        private=privacy.enabled,
        public_test=plan.evaluation.origin == "public",
    )

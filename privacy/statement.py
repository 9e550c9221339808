"""What a data-protection officer is told: every number with what it covers and what not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from ..core.errors import InvalidInput
from ..core.mechanism import CLIP_SLACK, MechanismSpec
from ..core.plan import Plan
from . import statement_words as words
from .accountant import bound_of, detection_of, enforced_bound, epsilon_of
from .derive import questions
from .events import Spend

NO_GUARANTEE = "no privacy guarantee: noise reproducible"
NOT_RUN = "not run"
FALSE_POSITIVES = 1e-3
"""The false positive rate at which a membership test's success is bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteAccount:
    """What one site's ledger holds: every number said of the site is derived from this.

    ``run`` are the reserves of this run; ``jobs`` those of every run
    (job and plan) on the same data asset.
    """

    spec: MechanismSpec
    run: Spend
    jobs: Mapping[Any, Spend]
    ledger_head: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What no ledger knows, but a reader must be told.

    ``base_model`` names the open model and what it was trained on; ``evaluation`` is the plan's
    origin of the test parts; ``reproducible_noise`` is read from the sites' noise sources.
    ``device_noise`` None: nobody here has seen which generator the sites used. ``once`` holds
    what the plan asks once beside the rounds, by name (``asked_once``).
    """

    rounds: int
    released: Sequence[str]
    base_model: str
    base_model_trained_on: str
    evaluation: str
    reproducible_noise: bool
    device_noise: bool | None = False
    once: Mapping[str, MechanismSpec] = field(default_factory=dict[str, MechanismSpec])


def statement(sites: Mapping[str, SiteAccount], told: Circumstances) -> dict[str, Any]:
    """Return the privacy statement of a run as plain values (notes 13; NIST SP 800-226, 2025).

    Every epsilon is recomputed here from the ledgers' reserves. Raises ``InvalidInput`` when a
    part is missing: a statement with a hole would be read as if there were nothing to say.
    """
    _complete(sites, told)
    spec = next(iter(sites.values())).spec
    by_site = {name: _site(account, told, spec.delta) for name, account in sites.items()}
    worst = max(sites, key=lambda name: by_site[name]["epsilon"])
    everyone = [row for account in sites.values() for row in account.run]
    return {
        "guarantee": NO_GUARANTEE if told.reproducible_noise else "differential privacy",
        "unit": spec.unit,
        "relation": spec.relation,
        "delta": spec.delta,
        "delta_reads": words.delta(spec.delta, max(a.spec.public_records for a in sites.values())),
        "epsilon_by_site": by_site,
        "epsilon_max": by_site[worst]["epsilon"],
        "epsilon_max_reads": "if no person is in two sites",
        "epsilon_if_shared": epsilon_of(everyone, spec.delta),
        "epsilon_if_shared_reads": "if one person may be in every site",
        "detection": _detection(sites[worst], everyone),
        "mechanism": _mechanism(spec, told),
        "accountant": _accountant(sites),
        "protects_against": dict(words.ADVERSARIES),
        "released": list(told.released),
        "evaluation": words.EVALUATION[told.evaluation],
        "base_model": {
            "name": told.base_model,
            "trained_on": told.base_model_trained_on,
            "accounted": False,
        },
        "tuning": {"accounted": False, "reads": words.TUNING},
        "audit": {"conformance": NOT_RUN, "leakage": NOT_RUN},
        "not_covered": list(words.NOT_COVERED),
        "questions": words.questions(spec, told.reproducible_noise, told.once),
    }


def released(plan: Plan) -> tuple[str, ...]:
    """Return everything that leaves the sites under a private plan, in the order of leaving."""
    return (
        *((words.STATISTICS,) if plan.statistics else ()),
        words.ROUNDS,
        *((words.CALIBRATION,) if plan.calibration else ()),
        words.TOLD[plan.evaluation.origin],
    )


def asked_once(plan: Plan) -> dict[str, MechanismSpec]:
    """Return the mechanism of each question that a job asks once, by its name in the statement.

    Those of the first site: at the others only the public size differs, on which, without
    sampling, no cost depends.
    """
    asked = questions(plan, plan.sites[0])
    return {words.ONCE[question]: spec for question, spec in asked.items()}


def _complete(sites: Mapping[str, SiteAccount], told: Circumstances) -> None:
    missing = [f"the ledger of {name}" for name, a in sites.items() if not a.ledger_head]
    if not sites:
        missing.append("every site")
    if not told.released:
        missing.append("what was released")
    missing += [
        f"what else the ledger of {name} was charged for"
        for name, account in sites.items()
        if any(_name(spec, account, told) is None for spec, _ in account.run)
    ]
    if not told.base_model or not told.base_model_trained_on:
        missing.append("what the open model was trained on")
    if missing:
        raise InvalidInput(
            "the privacy statement is incomplete",
            why="there is nothing about " + ", ".join(missing),
            cure="collect every site's ledger and the model's card before publishing",
        )


def _name(spec: MechanismSpec, account: SiteAccount, told: Circumstances) -> str | None:
    """Return which question a charge is for, '' for training, None for neither."""
    if spec == account.spec:
        return ""
    return next(
        (
            name
            for name, asked in told.once.items()
            if spec == replace(asked, public_records=spec.public_records)
        ),
        None,
    )


def _site(account: SiteAccount, told: Circumstances, delta: float) -> dict[str, Any]:
    named = [(_name(spec, account, told), steps) for spec, steps in account.run]
    everything = [row for spend in account.jobs.values() for row in spend]
    return {
        "epsilon": epsilon_of(account.run, delta),
        "epsilon_total": enforced_bound(account.jobs, delta).epsilon,
        "epsilon_total_fixed": epsilon_of(everything, delta),
        "runs_on_this_asset": len(account.jobs),
        "normaliser": account.spec.normaliser,
        "public_records": account.spec.public_records,
        "noisy_steps": sum(steps for name, steps in named if name == ""),
        "once_steps": {
            each: sum(steps for name, steps in named if name == each) for each in told.once
        },
        "ledger_head": account.ledger_head,
    }


def _detection(worst: SiteAccount, everyone: Spend) -> dict[str, Any]:
    one, all_sites = (detection_of(spend, FALSE_POSITIVES) for spend in (worst.run, everyone))
    return {
        "false_positive_rate": FALSE_POSITIVES,
        "true_positive_rate": one,
        "true_positive_rate_if_shared": all_sites,
        "reads": words.detection(FALSE_POSITIVES, one),
    }


def _mechanism(spec: MechanismSpec, told: Circumstances) -> dict[str, Any]:
    key = "the simulation's seed" if told.reproducible_noise else "the operating system"
    cpu = f"AES-256-CTR keyed by {key}"
    return {
        "name": "subsampled Gaussian (DP-SGD), noise added at each site",
        "sampler": spec.sampler,
        "sampling_rate": spec.sampling_rate,
        "batch_cap": spec.batch_cap,
        "clip_norm": spec.clip_norm,
        "clip_slack": CLIP_SLACK,
        "noise_multiplier": spec.noise_multiplier,
        "rounds": told.rounds,
        "steps_per_round": spec.steps,
        "noise": _generator(cpu, told.device_noise),
        "once": [_once(name, asked) for name, asked in told.once.items()],
    }


def _once(name: str, asked: MechanismSpec) -> dict[str, Any]:
    return {
        "name": name,
        "sensitivity": asked.clip_norm,
        "noise_multiplier": asked.noise_multiplier,
        "noise_std": asked.noise_std,
        "sampling_rate": asked.sampling_rate,
        "steps": asked.steps,
    }


def _generator(cpu: str, device: bool | None) -> str:
    on_device = "Philox on the device, 64-bit seed of each step from " + cpu
    if device is None:
        return f"not seen here, drawn at each site: {cpu}; for a large vector on a GPU {on_device}"
    return on_device if device else cpu


def _accountant(sites: Mapping[str, SiteAccount]) -> dict[str, Any]:
    bounds = [bound_of(account.run, account.spec.delta) for account in sites.values()]
    several = any(len(account.jobs) > 1 for account in sites.values())
    return {
        "method": "the smaller of privacy loss distribution and Renyi bound",
        "discretization": max(bound.interval for bound in bounds),
        "epsilon_pld": max(bound.pld for bound in bounds),
        "epsilon_rdp": max(bound.rdp for bound in bounds),
        "across_runs": words.FILTER if several else words.ONE_RUN,
        "dp_accounting": version("dp-accounting"),
    }

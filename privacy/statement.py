"""What a data-protection officer is told: every number with what it covers and what not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from ..core.errors import InvalidInput
from ..core.mechanism import MechanismSpec
from .accountant import INTERVAL, Spend, epsilon_of

NO_GUARANTEE = "no privacy guarantee: noise reproducible"

_NOT_COVERED = (
    "facts about the population that hold with or without any single record",
    "the sites' names, public sizes and the time at which they answer",
    "records of the test parts where the plan declares them public: their metrics carry no noise",
    "a person whose records are held by several sites, unless 'epsilon_if_shared' is read",
    "a site's decision to take part or to sit a round out",
    "data that the open model was trained on before this run",
    "choices of settings that somebody made by looking at these records",
    "floating-point artefacts of the noise (Mironov 2012), a theoretical class of attack",
)

_ADVERSARIES = {
    "coordinator": "sees each site's noised update: bounded by that site's epsilon",
    "other sites": "see the global model of every round: bounded by the same epsilon",
    "device holder": "sees the released model: post-processing, bounded by the same",
}


def statement(
    *,
    specs: Mapping[str, MechanismSpec],
    spends: Mapping[str, Spend],
    totals: Mapping[str, Spend],
    ledger_heads: Mapping[str, str],
    released: Sequence[str],
    reproducible_noise: bool,
    rounds: int,
) -> dict[str, Any]:
    """Return the privacy statement of a run as plain values.

    ``spends`` is what each site's ledger holds of this run and ``totals`` of its whole asset;
    every epsilon is recomputed from them here. Raises ``InvalidInput`` when a site has a
    mechanism but no ledger rows or head.
    """
    missing = sorted(
        set(specs) - set(spends) | set(specs) - set(totals) | set(specs) - set(ledger_heads)
    )
    if missing or not specs:
        raise InvalidInput(
            "the privacy statement is incomplete",
            why="no ledger entries or head for: " + (", ".join(missing) or "any site"),
            cure="collect every site's ledger before publishing",
        )
    spec = next(iter(specs.values()))
    delta = spec.delta
    by_site = {
        name: {
            "epsilon": epsilon_of(spends[name], delta),
            "epsilon_total": epsilon_of(totals[name], delta),
            "normaliser": specs[name].normaliser,
            "noisy_steps": sum(steps for _, steps in spends[name]),
            "ledger_head": ledger_heads[name],
        }
        for name in specs
    }
    return {
        "guarantee": NO_GUARANTEE if reproducible_noise else "differential privacy",
        "unit": spec.unit,
        "relation": spec.relation,
        "delta": delta,
        "epsilon_by_site": by_site,
        "epsilon_max": max(site["epsilon"] for site in by_site.values()),
        "epsilon_max_reads": "if no person is in two sites",
        "epsilon_if_shared": epsilon_of([row for rows in spends.values() for row in rows], delta),
        "mechanism": _mechanism(spec, rounds, reproducible_noise=reproducible_noise),
        "accountant": {
            "method": "privacy loss distribution",
            "discretization": INTERVAL,
            "dp_accounting": version("dp-accounting"),
        },
        "protects_against": dict(_ADVERSARIES),
        "released": list(released),
        "not_covered": list(_NOT_COVERED),
    }


def _mechanism(spec: MechanismSpec, rounds: int, *, reproducible_noise: bool) -> dict[str, Any]:
    key = "the simulation's seed" if reproducible_noise else "the operating system"
    return {
        "name": "subsampled Gaussian (DP-SGD), noise added at each site",
        "sampler": spec.sampler,
        "sampling_rate": spec.sampling_rate,
        "clip_norm": spec.clip_norm,
        "noise_multiplier": spec.noise_multiplier,
        "rounds": rounds,
        "steps_per_round": spec.steps,
        "noise": f"AES-256-CTR keyed by {key}",
    }

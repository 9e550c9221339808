"""What attackers can tell: a charged run with canaries, and membership scores of real members."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ..core.errors import NotAvailable, UsageError
from ..core.layout import Vector
from ..core.plan import Plan
from ..data.site_data import SiteData
from ..edge.device import infer, open_session
from ..models.adapters import write_vector
from ..models.evaluate import logits
from ..models.fitted import build_for, layouts
from ..models.tasks import task
from ..privacy.accountant import Spend, epsilon_of
from ..privacy.conformance_insertion import Draw, Inputs, Labels
from ..privacy.leakage import auroc, leakage, tpr_at
from ..privacy.noise import Floats
from ..server.models_out import read_vector_file
from .audit_build import declared_layout, inputs_of
from .records import simulation_seed, split_records
from .short_run import ShortRun, short_run

FOLDER = "audit-shadow"
CONFIDENCE, LOW_FPR = 0.95, 1e-3
STAYS = "stays at the site"

_LEAST = 20
_POOL = 6  # random inputs for each canary
_CHUNK = 64  # records whose gradients are taken at once
_DELTAS = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3, 1e-4, 1e-5, 1e-6)


def canary_run(folder: Path, plan: Plan, count: int, *, custom: bool) -> dict[str, Any]:
    """Return what ``count`` canaries give away in a run on a shadow copy of one site.

    Each is in with probability 1/2 beside the site's own records, under the plan's own
    mechanism and a ledger of its own, which is charged. Seen are the update of every round and
    the released model, as by the coordinator. Everything lies in ``folder/audit-shadow``, which
    is made anew. Raises ``NotAvailable`` for a custom run and ``UsageError`` for few canaries.
    """
    draw = None if custom else inputs_of(plan)
    if draw is None:
        raise NotAvailable(
            "canaries cannot be run here",
            why="the plan does not describe the model and records of this run"
            if custom
            else "random inputs of this model are not built yet",
            cure="audit without --canaries",
        )
    if count < _LEAST:
        raise UsageError(f"{count} canaries show nothing", cure=f"use at least {_LEAST}")
    rng = np.random.default_rng([0x1EAC, simulation_seed(plan), count])
    name = plan.sites[0].name
    x, y = _spread(plan, draw, rng, count)
    chosen = rng.random(count) < 0.5
    site = _with_canaries(split_records(plan).by_site[name], x[chosen], y[chosen])
    shadow_plan = _shadow_plan(plan, name, len(site.train_y))
    shadow = folder / FOLDER
    shutil.rmtree(shadow, ignore_errors=True)
    run = short_run(shadow_plan, {name: site}, shadow)
    scores = {
        "updates": _update_scores(plan, run, site, (x, y), int(chosen.sum())),
        "final model": -_losses(plan, run.vector, x, y),
    }
    return {"site": name} | _judged(plan, run.spends[name], chosen, scores, rng)


def membership(folder: Path, plan: Plan) -> dict[str, Any]:
    """Return how well the released and the quantized model tell members from the test part.

    Loss of each site's own training records against its own test part: figures about real
    records, which stay at the site.
    """
    models = {"released model": _torch_losses(plan, read_vector_file(folder)[0])}
    onnx = folder / "bundle" / "model.onnx"
    if onnx.is_file():
        models["quantized model"] = _onnx_losses(onnx.read_bytes())
    records = split_records(plan).by_site
    return {
        "note": STAYS,
        "false_positive_rate": LOW_FPR,
        "models": {
            model: {
                name: _membership(losses, data)
                for name, data in records.items()
                if len(data.test_y) and len(data.train_y)
            }
            for model, losses in models.items()
        },
    }


def _spread(plan: Plan, draw: Draw, rng: np.random.Generator, count: int) -> tuple[Inputs, Labels]:
    """Return ``count`` of many random inputs, whose gradients at the open model differ most.

    Greedy (pivoted Cholesky of their Gram matrix): canaries that look alike hide each other.
    """
    pool = _POOL * count
    x, y = draw(rng, pool), rng.integers(0, len(plan.model.classes), pool).astype(np.int64)
    model = build_for(plan)
    g = _clipped_gradients(plan, model, declared_layout(model, plan).names, x, y)
    left = (g * g).sum(axis=1)  # squared norm of what is new in each
    factors = np.zeros((count, pool))
    chosen: list[int] = []
    for place in range(count):
        left[chosen] = -1.0
        best = int(left.argmax())
        row = g @ g[best] - factors[:place].T @ factors[:place, best]
        factors[place] = row / np.sqrt(max(float(row[best]), 1e-12))
        left = left - factors[place] ** 2
        chosen.append(best)
    return x[chosen], y[chosen]


class _Losses:
    """Per-record cross-entropy of one model."""

    def __init__(self, forward: Any) -> None:
        self._forward = forward

    def __call__(self, x: Inputs, y: Labels) -> Floats:
        """Return (n,) nats."""
        found = np.asarray(self._forward(x), dtype=np.float64)
        shifted = found - found.max(axis=1, keepdims=True)
        log_chance = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        return -log_chance[np.arange(len(y)), y]


def _torch_losses(plan: Plan, vector: Vector) -> _Losses:
    model = build_for(plan)
    write_vector(model, layouts(model, plan)[2].names, vector)
    return _Losses(lambda x: logits(model, x))


def _onnx_losses(model: bytes) -> _Losses:
    session = open_session(model)
    return _Losses(lambda x: infer(session, x))


def _membership(losses: _Losses, data: SiteData) -> dict[str, Any]:
    """Return AUROC and TPR; below 1,000 non-members a rate of 1e-3 cannot be told from 0."""
    inside = -losses(data.train_x, data.train_y)
    outside = -losses(data.test_x, data.test_y)
    resolved = len(outside) * LOW_FPR >= 1
    return {
        "auroc": auroc(inside, outside),
        "tpr": tpr_at(inside, outside, LOW_FPR) if resolved else None,
        "tpr_without_false_positive": tpr_at(inside, outside, 0.0),
        "members": len(inside),
        "others": len(outside),
    }


def _losses(plan: Plan, vector: Vector, x: Inputs, y: Labels) -> Floats:
    return _torch_losses(plan, vector)(x, y)


def _with_canaries(data: SiteData, x: Inputs, y: Labels) -> SiteData:
    """Return the site's records and the canaries among them; each canary is a patient."""
    owners = None
    if data.train_units is not None:
        names = [f"canary-{number}" for number in range(len(y))]
        owners = np.array([*(f"record-{owner}" for owner in data.train_units), *names])
    return replace(
        data,
        asset=f"{data.asset}/audit-shadow",
        train_x=np.concatenate([data.train_x, x]).astype(np.float32),
        train_y=np.concatenate([data.train_y, y]),
        train_units=owners,
    )


def _shadow_plan(plan: Plan, name: str, records: int) -> Plan:
    """Return the plan of the one site, with room for the canaries; the noise is the same."""
    site = plan.site(name)
    grown = replace(site, public_records=max(site.public_records, records))
    return replace(plan, sites=(grown,))


def _update_scores(
    plan: Plan, run: ShortRun, site: SiteData, canaries: tuple[Inputs, Labels], inside: int
) -> Floats:
    """Return what the rounds' updates say for each canary, as seen by one who knows the members.

    Per round the best linear estimate of inclusion: <K^-1 (u - q sum of members' gradients), g>
    with u the noisy sum and K its covariance, all gradients clipped and taken at the base.
    """
    model = build_for(plan)
    layout, _, whole = layouts(model, plan)
    names = layout.names
    charged = (spec for spend in run.spends.values() for spec, _ in spend)
    spec = next(spec for spec in charged if spec.trainable_digest == layout.digest)
    rate, steps = spec.sampling_rate, spec.steps
    (x, y), members = canaries, len(site.train_y) - inside
    everyone_x = np.concatenate([x, site.train_x[:members]])
    everyone_y = np.concatenate([y, site.train_y[:members]])
    chance = np.where(np.arange(len(everyone_y)) < len(y), rate / 2, rate) * steps
    variance = chance / steps * (1 - chance / steps) * steps + 1e-12
    scale = spec.normaliser / plan.rounds.local_learning_rate
    scores = np.zeros(len(y))
    for seen in run.rounds:
        if not seen.updates:
            continue  # the site sat the round out
        write_vector(model, whole.names, seen.base)
        g = _clipped_gradients(plan, model, names, everyone_x, everyone_y)
        heard = -scale * sum(u.astype(np.float64) for u in seen.updates.values()) - chance @ g
        inner = np.diag(spec.noise_std**2 * steps / variance) + g @ g.T
        against = g @ heard
        scores += (against - (g @ g.T) @ np.linalg.solve(inner, against))[: len(y)]
    return scores


def _clipped_gradients(
    plan: Plan, model: nn.Module, names: Sequence[str], x: Inputs, y: Labels
) -> Floats:
    """Return each record's gradient (n, d), clipped; by vmap, in chunks (an attack, no oracle)."""
    loss = task(plan.model).loss
    trained = {name: model.get_parameter(name).detach() for name in names}

    def one(values: dict[str, Tensor], record: Tensor, label: Tensor) -> Tensor:
        return loss(functional_call(model, values, (record[None],)), label[None]).sum()

    rows: list[Floats] = []
    for start in range(0, len(y), _CHUNK):
        records = torch.from_numpy(x[start : start + _CHUNK])
        labels = torch.from_numpy(y[start : start + _CHUNK])
        found = vmap(grad(one), in_dims=(None, 0, 0))(trained, records, labels)
        parts = [found[name].reshape(len(labels), -1) for name in names]
        rows.append(torch.cat(parts, dim=1).double().numpy())
    g = np.nan_to_num(np.concatenate(rows))
    norms = np.maximum(np.linalg.norm(g, axis=1, keepdims=True), 1e-300)
    return g * np.minimum(1.0, plan.privacy.clip_norm / norms)


def _judged(
    plan: Plan,
    spend: Spend,
    chosen: NDArray[np.bool_],
    scores: Mapping[str, Floats],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Hold every attack's strict bounds against the claim, all together at the confidence."""
    delta = plan.privacy.delta
    claim = epsilon_of(spend, delta)
    curve = _claimed_curve(spend)
    each = 1 - (1 - CONFIDENCE) / (2 * len(scores))  # two strict bounds per attack
    attacks: dict[str, Any] = {}
    for attack, values in scores.items():
        inside, outside = values[chosen], values[~chosen]
        at_95 = leakage(inside, outside, delta=delta, claimed=curve, confidence=CONFIDENCE, rng=rng)
        strict = leakage(inside, outside, delta=delta, claimed=curve, confidence=each, rng=rng)
        attacks[attack] = asdict(at_95) | {
            "tpr": tpr_at(inside, outside, LOW_FPR),
            "contradicts_claim": strict.one_run > claim or strict.refuted,
        }
    return {
        "canaries": len(chosen),
        "in": int(chosen.sum()),
        "claimed_epsilon": claim,
        "delta": delta,
        "confidence": CONFIDENCE,
        "charged": f"epsilon {claim:.4f} on the shadow's own ledger",
        "strict": "one_run and the claimed curve (f-DP); f_dp on a Gaussian curve and gdp estimate",
        "attacks": attacks,
        "passed": not any(found["contradicts_claim"] for found in attacks.values()),
    }


def _claimed_curve(spend: Spend) -> list[tuple[float, float]]:
    """Return points (epsilon, delta) that the charged mechanism claims to satisfy, all at once."""
    return [(epsilon_of(spend, delta), delta) for delta in _DELTAS]

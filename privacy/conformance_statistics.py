"""Tests of noise, batches and inclusions on what the sites noted; all null laws are exact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, groupby

import numpy as np
from numpy.typing import NDArray
from scipy.special import betainc
from scipy.stats import binom

from ..core.mechanism import MechanismSpec
from .conformance import Finding, checked, measured, unexercised
from .conformance_laws import Law, spread_p, total_of
from .conformance_noise import noise_findings
from .conformance_records import Attempt, DrawnStep, Key

CORRELATION = "noise independence"
BATCHES, BATCH_SPREAD = "batch size", "batch size spread"
RECORD_SPREAD, OVERLAP = "inclusion by unit", "inclusion overlap"
SITES = "inclusion between sites"
UPDATE, STEPS, CHARGED = "update follows from steps", "steps executed", "executed is charged"

_SITE_PAIRS = 200  # beyond, each site is compared with its neighbour
_BLOCK = 512  # sketches compared at once
_CAP_BINDS = 1e-9  # probability of a cut batch above which inclusions are not independent enough
_RATE, _RESIDUAL = 1e-5, 1e-6  # an update is float32

Sites = Mapping[str, Sequence[Attempt]]
"""Every site's attempts."""


def statistical_findings(sites: Sites) -> list[Finding]:
    """Return the findings of all tests with a null law, over these sites."""
    found: list[Finding] = []
    for name, attempts in sites.items():
        found += noise_findings(
            name,
            [(a.spec.noise_multiplier, step) for a in attempts for step in _ordered(a)],
        )
        for spec, group in _by_law(attempts):
            found += _batches(name, spec, group)
            found += _inclusions(name, spec, group)
    return found + _between_sites(sites) + _correlations(sites)


def deterministic_findings(
    sites: Sites,
    *,
    learning_rate: float | None,
    charged: Mapping[str, Mapping[Key, MechanismSpec]],
    sent: Mapping[str, set[Key]],
) -> list[Finding]:
    """Return what must hold exactly: steps, updates, and that the ledger was charged for them.

    ``charged`` and ``sent`` are each ledger's reserves and commits. Without ``learning_rate``
    (the plan's) all updates of one job must agree on one.
    """
    found: list[Finding] = []
    for name, attempts in sites.items():
        found.append(_update(name, attempts, learning_rate))
        found.append(_steps(name, attempts, sent.get(name, set())))
        found.append(_charged(name, attempts, charged.get(name, {})))
    return found


def _correlations(sites: Sites) -> list[Finding]:
    """cos^2 of two independent Gaussian vectors (m,) is Beta(1/2, (m - 1)/2)."""
    rows: dict[int, list[NDArray[np.float32]]] = {}
    for attempts in sites.values():
        for attempt in attempts:
            for step in attempt.steps.values():
                rows.setdefault(step.size, []).append(step.sketch)
    where = "all sites" if len(sites) > 1 else next(iter(sites), "-")
    found = [_correlation(where, np.array(group, dtype=np.float64)) for group in rows.values()]
    return found or [unexercised(CORRELATION, where, "no step was taken")]


def _correlation(where: str, rows: NDArray[np.float64]) -> Finding:
    count, size = rows.shape
    if count < 2 or size < 2:
        return unexercised(CORRELATION, where, "fewer than two steps or two coordinates")
    norms = np.linalg.norm(rows, axis=1)
    pairs = count * (count - 1) // 2
    if not np.all(norms > 0):  # probability 0, whatever the cosine
        return Finding(
            test=CORRELATION, site=where, statistic="a step without noise", p=0.0, count=pairs
        )
    unit = rows / norms[:, None]
    largest = 0.0
    for start in range(0, count, _BLOCK):
        cosines = np.abs(unit[start : start + _BLOCK] @ unit.T)
        own = np.arange(len(cosines))
        cosines[own, start + own] = 0.0
        largest = max(largest, float(cosines.max()))
    p = float(betainc((size - 1) / 2, 0.5, max(0.0, 1 - largest**2)))
    text = f"largest |cos| {largest:.3f} of {pairs:,} pairs, {size} coordinates"
    return Finding(test=CORRELATION, site=where, statistic=text, p=p, count=pairs)


def _batches(name: str, spec: MechanismSpec, steps: Sequence[DrawnStep]) -> list[Finding]:
    """Batch sizes are iid Bin(N, q), cut at the cap: their total and their spread."""
    rate, count = spec.sampling_rate, steps[0].units
    sizes = np.array([step.batch for step in steps])
    law = Law.binomial(count, rate)
    law = law.capped(spec.batch_cap) if spec.batch_cap else law
    total = int(sizes.sum())
    p = (
        law.times(len(sizes)).two_sided(total)
        if spec.batch_cap
        else _binomial_p(total, count * len(sizes), rate)
    )
    text = f"{total / max(1, count * len(sizes)):.4f} of the units, plan {rate:g}"
    return [
        measured(BATCHES, name, text, [p]),
        measured(BATCH_SPREAD, name, f"{len(sizes)} steps", [spread_p(sizes, law)]),
    ]


def _binomial_p(value: int, count: int, rate: float) -> float:
    below, above = binom.cdf(value, count, rate), binom.sf(value - 1, count, rate)
    return min(1.0, 2 * min(float(below), float(above)))


def _inclusions(name: str, spec: MechanismSpec, steps: Sequence[DrawnStep]) -> list[Finding]:
    """Each unit's count is Bin(T, q); consecutive batches overlap as uniform subsets do."""
    table = np.array([step.included for step in steps])  # (steps, tracked units)
    if table.shape[1] == 0:
        return [unexercised(RECORD_SPREAD, name, "the site holds no unit")]
    return [_by_unit(name, spec, steps[0].units, table), _overlap(name, table)]


def _by_unit(name: str, spec: MechanismSpec, count: int, table: NDArray[np.bool_]) -> Finding:
    steps, tracked = table.shape
    cut = (
        steps * float(binom.sf(spec.batch_cap, count, spec.sampling_rate))
        if spec.batch_cap
        else 0.0
    )
    if cut > _CAP_BINDS:
        why = "the batch cap binds too often for counts to be independent; the overlap is tested"
        return unexercised(RECORD_SPREAD, name, why)
    counts = table.sum(axis=0)
    p = spread_p(counts, Law.binomial(steps, spec.sampling_rate)) + cut
    text = f"{tracked} units, counts {counts.min()} to {counts.max()} in {steps} steps"
    return measured(RECORD_SPREAD, name, text, [p])


def _overlap(name: str, table: NDArray[np.bool_]) -> Finding:
    """Given its size a batch is a uniform subset, with or without a cap (hypergeometric)."""
    pairs = len(table) // 2
    if pairs == 0:
        return unexercised(OVERLAP, name, "a single step was taken")
    p, shared, expected = _shared(table[: 2 * pairs : 2], table[1 : 2 * pairs : 2])
    text = f"{shared} shared, {expected:.1f} expected in {pairs} pairs"
    return measured(OVERLAP, name, text, [p])


def _between_sites(sites: Sites) -> list[Finding]:
    """Two sites that drew from one stream include the same places of their lists."""
    steps = {
        name: {(attempt.key, step.step): step for attempt in attempts for step in _ordered(attempt)}
        for name, attempts in sites.items()
    }
    pairs = list(combinations(steps, 2))
    if len(pairs) > _SITE_PAIRS:
        pairs = list(zip(steps, [*list(steps)[1:], next(iter(steps))], strict=True))
    found = [_common(steps[one], steps[other]) for one, other in pairs]
    ps = [p for p in found if p is not None]
    if not ps:
        return []
    where = "all sites"
    return [measured(SITES, where, f"{len(ps)} pairs of sites, units in order", ps)]


def _common(
    one: Mapping[tuple[Key, int], DrawnStep], other: Mapping[tuple[Key, int], DrawnStep]
) -> float | None:
    keys = [key for key in one if key in other]
    count = min((min(len(one[k].included), len(other[k].included)) for k in keys), default=0)
    if not count:
        return None
    tables = [np.array([steps[key].included[:count] for key in keys]) for steps in (one, other)]
    return _shared(*tables)[0]


def _shared(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[float, int, float]:
    """Return the p-value of how many units batches (pairs, units) share, that and its mean."""
    count = first.shape[1]
    sizes = [(int(a), int(b)) for a, b in zip(first.sum(1), second.sum(1), strict=True)]
    shared = int((first & second).sum())
    law = total_of(Law.overlap(count, a, b) for a, b in sizes)
    return law.two_sided(shared), shared, sum(a * b for a, b in sizes) / count


def _update(name: str, attempts: Sequence[Attempt], learning_rate: float | None) -> Finding:
    ended = [attempt for attempt in attempts if attempt.ended]
    if not ended:
        return unexercised(UPDATE, name, "no update was made")
    rates: dict[str, float] = {}
    wrong = 0
    for attempt in ended:
        rate, residual = attempt.rate or 0.0, attempt.residual
        wanted = learning_rate or rates.setdefault(attempt.key[0], rate)
        fits = residual is not None and residual <= _RESIDUAL
        wrong += not (fits and abs(rate - wanted) <= _RATE * abs(wanted) and rate > 0)
    text = f"{len(ended) - wrong} of {len(ended)} updates"
    note = "-learning rate x sum of noisy steps / normaliser, to float32 rounding"
    return checked(UPDATE, name, text, holds=wrong == 0, note=note)


def _steps(name: str, attempts: Sequence[Attempt], sent: set[Key]) -> Finding:
    made = {attempt.key for attempt in attempts if attempt.ended}
    wrong = sum(
        set(attempt.steps) != set(range(attempt.spec.steps))
        or {step.size for step in attempt.steps.values()} != {attempt.size}
        for attempt in attempts
        if attempt.ended
    )
    missing = len(sent - made)
    text = f"{len(made) - wrong} of {len(made) + missing} updates with all steps on file"
    note = f"{missing} updates left without evidence" if missing else ""
    return checked(STEPS, name, text, holds=wrong == missing == 0, note=note)


def _charged(
    name: str, attempts: Sequence[Attempt], charged: Mapping[Key, MechanismSpec]
) -> Finding:
    right = sum(charged.get(attempt.key) == attempt.spec for attempt in attempts)
    text = f"{right} of {len(attempts)} attempts reserved with the same mechanism"
    return checked(CHARGED, name, text, holds=right == len(attempts))


def _ordered(attempt: Attempt) -> list[DrawnStep]:
    return [attempt.steps[number] for number in sorted(attempt.steps)]


def _by_law(attempts: Sequence[Attempt]) -> Iterator[tuple[MechanismSpec, list[DrawnStep]]]:
    """Yield runs of steps in order that share sampler, rate, cap and number of units."""
    rows = [
        ((attempt.spec.sampling_rate, attempt.spec.batch_cap, step.units), attempt.spec, step)
        for attempt in attempts
        for step in _ordered(attempt)
    ]
    rows.sort(key=lambda row: row[0])
    for _, group in groupby(rows, key=lambda row: row[0]):
        members = list(group)
        yield members[0][1], [step for _, _, step in members]

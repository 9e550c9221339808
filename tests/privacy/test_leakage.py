"""Lower bounds on epsilon against published vectors, slow twins, and simulated scores."""

import math
from statistics import median
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom, norm

from collegium.privacy import leakage as audit
from collegium.privacy.leakage import Guesses, curve_inverse, f_dp_epsilon, one_run_epsilon

NOTE = {"rate": 0.0256, "sigma": 1.0, "steps": 780}
DELTA = 1e-5


def spaced(mean: float, count: int) -> np.ndarray:
    """Scores at the quantiles of a normal: no chance."""
    return norm.ppf((np.arange(count) + 0.5) / count) + mean


def frontier(inside: np.ndarray, outside: np.ndarray) -> list[Guesses]:
    """The guesses at each threshold on the convex hull of the ROC curve, as jax_privacy takes."""
    scores = np.concatenate([inside, outside])
    labels = np.arange(len(scores)) < len(inside)
    thresholds = audit.hull_thresholds(inside, outside)
    return [audit.guesses_at(scores, labels, float(threshold)) for threshold in thresholds]


@pytest.mark.parametrize(
    ("shift", "one_run", "f_dp"),
    [(0, 0.0, 0.0), (1, 1.13346, 2.164749), (2, 2.311945, 4.7218075), (4, 4.395568, 9.133752)],
)
def test_vectors_of_jax_privacy(shift: float, one_run: float, f_dp: float) -> None:
    """google-deepmind/jax_privacy, tests/auditing_test.py, test_epsilon_one_run_close."""
    found = frontier(spaced(shift, 10_000), spaced(0, 10_000))
    level, delta = 0.05 / len(found), 1e-6
    best = [0.0, 0.0]
    for guesses in sorted(found, key=lambda g: -g.right / max(1, g.made)):
        if guesses.made == 0:
            continue
        if audit.one_run_p(guesses, best[0] + 1e-9, delta) <= level:
            best[0] = one_run_epsilon(guesses, level, delta)
        mu = audit.mu_of(max(best[1], 1e-3), delta)
        if audit.refutes(guesses, level, lambda y, mu=mu: float(norm.cdf(norm.ppf(y) - mu))):
            best[1] = f_dp_epsilon(guesses, level, delta)
    assert best == pytest.approx([one_run, f_dp], rel=1e-5, abs=1e-9)


def test_vectors_of_privacy_guard() -> None:
    """facebookresearch/PrivacyGuard, TestFDPAnalysisNode.test_audit_rh_with_cap."""
    guesses = Guesses(canaries=1000, made=200, right=100)
    assert not audit.refutes(guesses, 0.05, lambda y: y / 2)
    assert audit.refutes(guesses, 0.05, lambda y: y * 2)


@pytest.mark.parametrize("delta", [0.0, 1e-6, 1e-3, 0.1])
@pytest.mark.parametrize(("m", "made", "wrong"), [(10, 10, 1), (100, 10, 0), (1000, 100, 10)])
def test_the_one_run_p_value_by_its_definition(m: int, made: int, wrong: int, delta: float) -> None:
    guesses = Guesses(canaries=m, made=made, right=made - wrong)
    for epsilon in (0.0, 0.5, 1.0):
        p = math.exp(epsilon) / (1 + math.exp(epsilon))
        tail = sum(binom.pmf(k, made, p) for k in range(guesses.right, made + 1))
        best = max(
            sum(binom.pmf(k, made, p) for k in range(guesses.right - i, guesses.right)) / i
            for i in range(1, guesses.right + 1)
        )
        expected = min(1.0, tail + 2 * m * delta * best)
        assert audit.one_run_p(guesses, epsilon, delta) == pytest.approx(expected)


def test_a_claim_that_holds_is_rarely_contradicted() -> None:
    """Randomised response at epsilon 1 is the worst case of (1, 0): at most 5 % of 400 audits."""
    rng, p = np.random.default_rng(0), math.e / (1 + math.e)
    inverse = curve_inverse([(1.0, 0.0)])
    above = refuted = 0
    for _ in range(400):
        guesses = Guesses(canaries=200, made=200, right=int(rng.binomial(200, p)))
        above += audit.one_run_p(guesses, 1.0, 0.0) <= 0.05
        refuted += audit.refutes(guesses, 0.05, inverse)
    assert above <= binom.ppf(1 - 1e-6, 400, 0.05)
    assert refuted <= binom.ppf(1 - 1e-6, 400, 0.05)
    assert above > 0  # the bound is tight: it does bite at its level


def test_the_claimed_curve_by_brute_force() -> None:
    """Inverse of y(x) = min over points of min(e^eps x + delta, 1 - e^-eps (1 - delta - x))."""
    points = [(0.0, 0.3), (0.5, 0.1), (2.0, 1e-3)]
    inverse, x = curve_inverse(points), np.linspace(0, 1, 200_001)
    curve = np.min(
        [
            np.minimum(math.exp(e) * x + d, 1 - math.exp(-e) * (1 - d - x)).clip(0, 1)
            for e, d in points
        ],
        axis=0,
    )
    for y in (0.0, 1e-3, 0.1, 0.31, 0.5, 0.9, 0.999, 1.0):
        assert inverse(y) == pytest.approx(float(x[np.searchsorted(curve, y)]), abs=1e-5)


def test_a_false_claim_is_refuted_on_its_curve() -> None:
    guesses = Guesses(canaries=400, made=100, right=98)
    assert audit.refutes(guesses, 0.05, curve_inverse([(1.0, 1e-5)]))
    assert not audit.refutes(guesses, 0.05, curve_inverse([(8.0, 1e-5)]))
    assert not audit.refutes(Guesses(canaries=9, made=0, right=0), 0.05, curve_inverse([(1, 0)]))


@pytest.mark.parametrize("mu", [0.3, 1.0, 3.0])
def test_gdp_is_tight_with_many_canaries(mu: float) -> None:
    """jax_privacy's test_epsilon_from_gdp_tight: near the Gaussian mechanism's epsilon."""
    rng, delta = np.random.default_rng(0), 5e-2
    found = audit.gdp_epsilon(rng.normal(mu, 1, 500_000), rng.normal(0, 1, 500_000), 0.1, delta)
    from dp_accounting import get_epsilon_gaussian

    assert found == pytest.approx(get_epsilon_gaussian(1 / mu, delta), rel=0.08)
    assert audit.mu_of(audit_epsilon(mu, delta), delta) == pytest.approx(mu, rel=1e-6)


def audit_epsilon(mu: float, delta: float) -> float:
    """The epsilon at which mu-GDP has this delta."""
    return float(
        audit.brentq(lambda e: audit.gaussian_delta(e, mu) - delta, 0 if mu > 1 else -3, 60)
    )


def simulated(
    rng: np.random.Generator, m: int, noise: float, gradient: float
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of notes/privacy.md, section 9: sums over the steps of noise and a canary's part."""
    inside = rng.random(m) < 0.5
    spread = math.sqrt(NOTE["steps"]) * NOTE["sigma"] * noise
    taken = rng.binomial(int(NOTE["steps"]), NOTE["rate"], m) * inside
    scores = rng.normal(0, 1, m) * spread + taken * gradient
    return scores[inside], scores[~inside]


@pytest.fixture(scope="module")
def claimed(make_spec: Any) -> list[tuple[float, float]]:
    """The curve of the note's mechanism, as its accountant gives it."""
    from collegium.privacy.accountant import epsilon_of

    spec = make_spec(sampling_rate=NOTE["rate"], noise_multiplier=NOTE["sigma"])
    spend = [(spec, int(NOTE["steps"]))]
    return [(epsilon_of(spend, delta), delta) for delta in (0.3, 0.1, 1e-2, 1e-3, DELTA)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "gradient", "one_run", "f_dp", "gdp"),
    [
        (1.0, 1.0, 0.50, 0.63, 1.91),
        (0.5, 1.0, 1.92, 3.18, 5.32),
        (0.9, 1.0, 0.89, 0.85, 2.14),
        (1.0, 2.0, 1.92, 3.18, 5.32),
        (0.0, 1.0, 4.37, 8.64, 30.0),
    ],
)
def test_the_table_of_the_note(
    noise: float,
    gradient: float,
    one_run: float,
    f_dp: float,
    gdp: float,
    claimed: list[tuple[float, float]],
) -> None:
    """m = 1000, medians of 9 seeds (one seed's std: .25, .35, .25); the note's are of 3."""
    found = []
    for seed in range(9):
        rng = np.random.default_rng(seed)
        inside, outside = simulated(rng, 1000, noise, gradient)
        found.append(audit.leakage(inside, outside, delta=DELTA, claimed=claimed, rng=rng))
    assert median(f.one_run for f in found) == pytest.approx(one_run, abs=0.4)
    assert median(f.f_dp for f in found) == pytest.approx(f_dp, abs=0.7)
    assert median(f.gdp for f in found) == pytest.approx(gdp, abs=0.7)
    assert not any(f.one_run > 4.512 for f in found)  # this is what the bound alone would say
    assert {f.refuted for f in found} == {noise == 0}


def test_noise_that_was_left_out_is_refuted_with_a_thousand_canaries(
    claimed: list[tuple[float, float]],
) -> None:
    """The note: one-run stays below the claim (4.37), the f-DP bound does not (8.64)."""
    rng = np.random.default_rng(0)
    inside, outside = simulated(rng, 1000, 0.0, 1.0)
    assert claimed[-1][0] == pytest.approx(4.512, abs=5e-3)  # the note's figure
    found = audit.leakage(inside, outside, delta=DELTA, claimed=claimed, rng=rng)
    assert found.one_run < 4.512 < found.f_dp
    assert found.refuted
    assert found.auroc == pytest.approx(1.0, abs=1e-3)


def test_few_canaries_show_nothing() -> None:
    rng = np.random.default_rng(0)
    inside, outside = simulated(rng, 20, 1.0, 1.0)
    found = audit.leakage(inside, outside, delta=DELTA, claimed=[(4.512, DELTA)], rng=rng)
    assert found.one_run == found.f_dp == 0.0
    assert not found.refuted


def test_the_hull_by_hand() -> None:
    """jax_privacy's test_get_tn_fn_counts, three of its cases."""
    found = audit.hull_thresholds(np.array([1.5, 2.5, 0.5, 3.5]), np.array([0.0, 3.0, 2.0, 1.0]))
    assert found.tolist() == [0.0, 0.5, 3.5, math.inf]
    found = audit.hull_thresholds(np.array([0.0, 0.0, 1.0, 2.0]), np.array([0.0, 1.0, 1.0, 1.0]))
    assert found.tolist() == [0.0, 2.0, math.inf]
    assert audit.hull_thresholds(np.zeros(4), np.zeros(4)).tolist() == [0.0, math.inf]


def test_auroc_and_tpr_by_hand() -> None:
    inside, outside = np.array([0.0, 4.0, 6.0, 7.0]), np.array([1.0, 2.0, 3.0, 5.0])
    assert audit.auroc(inside, outside) == 11 / 16  # pairs that are in order
    assert audit.auroc(np.ones(3), np.ones(5)) == 0.5
    assert audit.tpr_at(inside, outside, 0.0) == 0.5
    assert audit.tpr_at(inside, outside, 0.25) == 0.75
    assert audit.tpr_at(inside, outside, 1.0) == 1.0
    assert audit.tpr_at(np.ones(3), np.ones(5), 1e-3) == 0.0


def test_guesses_at_a_threshold() -> None:
    scores, labels = np.array([3.0, 2.0, 2.0, 1.0]), np.array([True, False, True, True])
    assert audit.guesses_at(scores, labels, 2.0) == Guesses(canaries=4, made=3, right=2)
    assert audit.guesses_at(scores, labels, math.inf) == Guesses(canaries=4, made=0, right=0)

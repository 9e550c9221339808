"""Noise, batches, inclusions: honest steps pass, each kind of broken one is found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collegium.core.mechanism import MechanismSpec
from collegium.privacy import conformance_noise as noise
from collegium.privacy import conformance_statistics as tests
from collegium.privacy.conformance import Finding, judge
from collegium.privacy.conformance_records import EDGES, Attempt, DrawnStep

Make = Callable[..., MechanismSpec]
SIZE, UNITS = 300, 60


def shape_of(z: np.ndarray) -> dict[str, Any]:
    """What evidence holds of one step's noise over two tensors."""
    bins = np.histogram(np.abs(z), [0, *EDGES, np.inf])[0]
    return {
        "tensor_sizes": (20, SIZE - 20),
        "tensor_squares": (float(z[:20] @ z[:20]), float(z[20:] @ z[20:])),
        "bins": tuple(bins.tolist()),
        "negative": int((z < 0).sum()),
        "zeros": int((z == 0).sum()),
    }


def attempts_of(
    spec: MechanismSpec,
    rng: np.random.Generator,
    *,
    rounds: int = 12,
    units: int = UNITS,
    change: Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]] | None = None,
) -> tuple[Attempt, ...]:
    """Honest attempts of one site; ``change(z, batch, number)`` breaks a step."""
    found: list[Attempt] = []
    number = 0
    for round in range(1, rounds + 1):
        steps: dict[int, DrawnStep] = {}
        for place in range(spec.steps):
            z = rng.standard_normal(SIZE)
            batch = np.flatnonzero(rng.random(units) < spec.sampling_rate)
            if spec.batch_cap:
                batch = np.sort(rng.permutation(batch)[: spec.batch_cap])
            if change:
                z, batch = change(z, batch, number)
            included = np.zeros(units, dtype=bool)
            included[batch] = True
            steps[place] = DrawnStep(
                step=place, size=SIZE, squares=float(z @ z), sketch=z[:256].astype(np.float32),
                units=units, batch=len(batch), included=included, **shape_of(z),
            )  # fmt: skip
            number += 1
        found.append(
            Attempt(
                key=("job", round, 1), spec=spec, steps=steps, rate=0.5, residual=1e-8, size=SIZE
            )
        )
    return tuple(found)


def failed(findings: list[Finding]) -> set[str]:
    """The tests that fail, once judged together."""
    return {finding.test for finding in judge(findings) if finding.outcome == "failed"}


@pytest.fixture
def spec(make_spec: Make) -> MechanismSpec:
    """Two steps a round, rate .3."""
    return make_spec(steps=2, sampling_rate=0.3, public_records=80, normaliser=24.0)


def sites_of(spec: MechanismSpec, seed: int = 0, **options: Any) -> dict[str, tuple[Attempt, ...]]:
    """Three sites of other sizes."""
    rng = np.random.default_rng(seed)
    return {
        f"s{number}": attempts_of(spec, rng, units=UNITS + number, **options) for number in range(3)
    }


def test_honest_sites_pass_and_every_p_value_is_counted(spec: MechanismSpec) -> None:
    findings = tests.statistical_findings(sites_of(spec))
    assert failed(findings) == set()
    steps, sites = 24, 3
    own = 2 * (steps + 1) + len(EDGES) + 2 + 1  # tensors, bins and sign, zeros
    pairs = sites * steps * (sites * steps - 1) // 2
    assert sum(finding.count for finding in findings) == sites * (1 + steps + own + 4) + 3 + pairs


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("halved", lambda z, b, n: (z / 2, b), {noise.NOISE, noise.NOISE_STEPS}),
        ("signs", lambda z, b, n: (np.sign(z), b), {noise.NOISE_LAW}),
        ("half-normal", lambda z, b, n: (np.abs(z), b), {noise.NOISE_LAW}),
        ("coarse", lambda z, b, n: (np.round(z), b), {noise.NOISE_LAW, noise.NOISE_GAPS}),
        ("one tensor halved", lambda z, b, n: (np.append(z[:20] / 2, z[20:]), b),
         {noise.NOISE_TENSORS}),
        ("one tensor at one step", lambda z, b, n: (np.append(z[:20] * 10 ** -(n == 4), z[20:]), b),
         {noise.NOISE_TENSORS}),
        ("one coordinate", lambda z, b, n: (np.append(z[:-1], 0.0), b), {noise.NOISE_GAPS}),
        ("one step without", lambda z, b, n: (z * (n != 5), b),
         {noise.NOISE_STEPS, tests.CORRELATION}),
        ("not a number", lambda z, b, n: (z * np.nan, b), {noise.NOISE, noise.NOISE_STEPS}),
        ("fixed batches", lambda z, b, n: (z, np.arange(18) + n % 30),
         {tests.BATCH_SPREAD}),
        ("the same batch", lambda z, b, n: (z, np.arange(len(b))), {tests.OVERLAP}),
        ("too many", lambda z, b, n: (z, np.union1d(b, np.arange(0, UNITS, 5))),
         {tests.BATCHES}),
        ("some never", lambda z, b, n: (z, b[b > 19]), {tests.RECORD_SPREAD}),
    ],
)  # fmt: skip
def test_broken_steps_fail(spec: MechanismSpec, name: str, change: Any, expected: set[str]) -> None:
    found = failed(tests.statistical_findings(sites_of(spec, change=change)))
    assert expected <= found, name


def test_noise_that_two_steps_share_is_found_in_one_pair_of_many(spec: MechanismSpec) -> None:
    kept: list[np.ndarray] = []

    def change(z: np.ndarray, batch: np.ndarray, number: int) -> Any:
        kept.append(z)
        return (kept[3] if len(kept) == 60 else z), batch

    assert failed(tests.statistical_findings(sites_of(spec, change=change))) == {tests.CORRELATION}


def test_sites_that_share_a_stream_include_the_same_places(spec: MechanismSpec) -> None:
    one, other = (
        attempts_of(spec, np.random.default_rng(3), units=UNITS),
        attempts_of(spec, np.random.default_rng(3), units=UNITS),
    )
    assert {tests.SITES, tests.CORRELATION} <= failed(
        tests.statistical_findings({"a": one, "b": other})
    )


def test_the_cosine_of_three_coordinates_is_uniform() -> None:
    """m = 3: |cos| of independent vectors is uniform (Archimedes), so p = 1 - |cos|."""
    rows = np.array([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0]])
    assert tests._correlation("x", rows).p == pytest.approx(0.4)


def test_many_sketches_are_compared_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.random.default_rng(0).standard_normal((40, 64))
    whole = tests._correlation("x", rows)
    monkeypatch.setattr(tests, "_BLOCK", 7)
    assert tests._correlation("x", rows) == whole


@pytest.mark.parametrize("cap", [18, 24, 48])
def test_capped_batches_have_their_own_law(make_spec: Make, cap: int) -> None:
    spec = make_spec(
        steps=2, sampling_rate=0.3, sampler="truncated-poisson", batch_cap=cap,
        relation="replace-special",
    )  # fmt: skip
    findings = tests.statistical_findings(sites_of(spec))
    assert failed(findings) == set()
    by_unit = [finding for finding in findings if finding.test == tests.RECORD_SPREAD]
    assert {finding.outcome for finding in by_unit} == (
        {"passed"} if cap == 48 else {"not exercised"}
    )
    uncut = replace(spec, sampler="poisson", batch_cap=0)
    if cap == 18:  # a sampler that ignores the cap
        free = sites_of(uncut)
        broken = {
            name: tuple(replace(attempt, spec=spec) for attempt in attempts)
            for name, attempts in free.items()
        }
        assert {tests.BATCHES, tests.BATCH_SPREAD} & failed(tests.statistical_findings(broken))


def test_a_site_without_units_or_with_one_step(make_spec: Make) -> None:
    spec = make_spec(steps=1, sampling_rate=0.3)
    alone = attempts_of(spec, np.random.default_rng(0), rounds=1)
    found = {f.test: f.outcome for f in judge(tests.statistical_findings({"a": alone}))}
    assert found[tests.OVERLAP] == found[tests.CORRELATION] == "not exercised"
    empty = attempts_of(spec, np.random.default_rng(0), rounds=3, units=0)
    found = {f.test: f.outcome for f in judge(tests.statistical_findings({"a": empty}))}
    assert found[tests.RECORD_SPREAD] == "not exercised"
    assert found[tests.BATCHES] == "passed"
    found = {f.test: f.outcome for f in judge(tests.statistical_findings({"a": (), "b": alone}))}
    assert found[noise.NOISE] in ("passed", "not exercised")


def deterministic(attempts: tuple[Attempt, ...], **changes: Any) -> set[str]:
    """What fails of one site's attempts, against a ledger that was charged for all of them."""
    keys = {attempt.key: attempt.spec for attempt in attempts}
    options: dict[str, Any] = {
        "learning_rate": 0.5, "charged": {"a": keys}, "sent": {"a": set(keys)},
    } | changes  # fmt: skip
    return failed(tests.deterministic_findings({"a": attempts}, **options))


def test_updates_steps_and_charges(spec: MechanismSpec) -> None:
    good = attempts_of(spec, np.random.default_rng(0), rounds=3)
    keys = {attempt.key: attempt.spec for attempt in good}
    assert deterministic(good) == set()
    assert deterministic(good, learning_rate=None) == set()
    assert deterministic(good, learning_rate=0.4) == {tests.UPDATE}
    other = (replace(good[0], rate=0.6), *good[1:])
    assert deterministic(other) == deterministic(other, learning_rate=None) == {tests.UPDATE}
    assert deterministic((replace(good[0], residual=1e-3), *good[1:])) == {tests.UPDATE}
    assert deterministic((replace(good[0], size=SIZE + 1), *good[1:])) == {tests.STEPS}
    one_less = replace(good[0], steps={0: good[0].steps[0]})
    assert deterministic((one_less, *good[1:])) == {tests.STEPS}
    assert deterministic(good[1:], charged={"a": keys}, sent={"a": set(keys)}) == {tests.STEPS}
    dearer = {key: replace(value, noise_multiplier=9.0) for key, value in keys.items()}
    assert deterministic(good, charged={"a": dearer}) == {tests.CHARGED}
    assert deterministic(good, charged={}) == {tests.CHARGED}


def test_an_attempt_that_was_killed_needs_no_update(spec: MechanismSpec) -> None:
    good = attempts_of(spec, np.random.default_rng(0), rounds=3)
    cut = replace(good[2], rate=None, residual=None, size=None, steps={0: good[2].steps[0]})
    sent = {attempt.key for attempt in good[:2]}
    assert deterministic((*good[:2], cut), sent={"a": sent}) == set()


@pytest.mark.slow
def test_honest_p_values_are_not_too_small(spec: MechanismSpec) -> None:
    """200 honest sites: the smallest p of each test, times its count, is rarely below .01."""
    low: dict[str, int] = {}
    for seed in range(100):
        sites = sites_of(spec, seed=100 + seed, rounds=6)
        for finding in tests.statistical_findings({"s0": sites["s0"], "s1": sites["s1"]}):
            if finding.p is not None and finding.p * finding.count < 0.01:
                low[finding.test] = low.get(finding.test, 0) + 1
    assert all(count <= 9 for count in low.values()), low  # Bin(200, .01) >= 10: 3e-5

"""Epsilon against dp-accounting called directly, frozen tables, and the calibration's edges."""

import math
from collections.abc import Callable

import pytest
from dp_accounting import dp_event as events
from dp_accounting import privacy_accountant
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.errors import InvalidInput, NotBuiltYet
from collegium.core.mechanism import MechanismSpec
from collegium.privacy.accountant import INTERVAL, calibrate, epsilon_of

Make = Callable[..., MechanismSpec]
NEIGHBOURS = privacy_accountant.NeighboringRelation

# N = 10,000, B = 256, 780 steps, delta 1e-5, add or remove one; also Opacus' PRV accountant
TABLE = {0.6: 15.807, 0.8: 7.384, 1.0: 4.512, 1.2: 3.225, 1.5: 2.270, 2.0: 1.529}
PRV = {0.6: 15.82, 0.8: 7.394, 1.0: 4.522, 1.2: 3.235, 1.5: 2.279, 2.0: 1.539}


def direct(*parts: tuple[float, float, int], delta: float = 1e-5) -> float:
    """dp-accounting's own answer for (noise, rate, steps), one step after the other."""
    accountant = PLDAccountant(NEIGHBOURS.ADD_OR_REMOVE_ONE, value_discretization_interval=INTERVAL)
    for noise, rate, steps in parts:
        event = events.PoissonSampledDpEvent(rate, events.GaussianDpEvent(noise))
        for _ in range(steps):
            accountant.compose(event)
    return float(accountant.get_epsilon(delta))


@pytest.mark.parametrize("noise", TABLE)
def test_frozen_table(make_spec: Make, noise: float) -> None:
    found = epsilon_of([(make_spec(noise_multiplier=noise, sampling_rate=0.0256), 780)], 1e-5)
    assert found == pytest.approx(TABLE[noise], abs=6e-4)
    assert abs(found - PRV[noise]) <= 0.02


@pytest.mark.parametrize("noise", [0.8, 1.5])
def test_the_rougher_accountant_says_more(make_spec: Make, noise: float) -> None:
    rough = RdpAccountant()
    rough.compose(
        events.SelfComposedDpEvent(
            events.PoissonSampledDpEvent(0.0256, events.GaussianDpEvent(noise)), 780
        )
    )
    exact = epsilon_of([(make_spec(noise_multiplier=noise, sampling_rate=0.0256), 780)], 1e-5)
    assert exact <= rough.get_epsilon(1e-5)


def test_one_full_batch_is_the_gaussian_mechanism(make_spec: Make) -> None:
    """Balle & Wang 2018, theorem 8: the exact delta of a Gaussian at that epsilon."""
    noise = 1.7
    epsilon = epsilon_of([(make_spec(noise_multiplier=noise, sampling_rate=1.0), 1)], 1e-5)

    def cdf(x: float) -> float:
        return 0.5 * math.erfc(-x / 2**0.5)

    delta = cdf(0.5 / noise - epsilon * noise) - math.exp(epsilon) * cdf(
        -0.5 / noise - epsilon * noise
    )
    assert delta <= 1e-5
    assert delta == pytest.approx(1e-5, rel=0.02)


def test_mixed_mechanisms_compose_like_dp_accounting(make_spec: Make) -> None:
    spend = [
        (make_spec(noise_multiplier=1.0, sampling_rate=0.1), 7),
        (make_spec(noise_multiplier=2.0, sampling_rate=0.5), 3),
        (make_spec(noise_multiplier=1.0, sampling_rate=0.1), 5),
    ]
    expected = direct((1.0, 0.1, 12), (2.0, 0.5, 3))
    assert epsilon_of(spend, 1e-5) == pytest.approx(expected, abs=1e-6)
    assert epsilon_of(spend[::-1], 1e-5) == epsilon_of(spend, 1e-5)


@given(
    noise=st.sampled_from([0.9, 1.5, 3.0]),
    rate=st.sampled_from([0.05, 0.3, 1.0]),
    cuts=st.lists(st.integers(0, 5), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=15)
def test_rounds_cost_what_their_steps_cost(
    make_spec: Make, noise: float, rate: float, cuts: list[int]
) -> None:
    spec = make_spec(noise_multiplier=noise, sampling_rate=rate)
    apart = epsilon_of([(spec, count) for count in cuts], 1e-5)
    assert apart == epsilon_of([(spec, sum(cuts))], 1e-5)


def test_monotone(make_spec: Make) -> None:
    """More steps, more sampling or less noise never cost less; a smaller delta costs more."""

    def cost(noise: float = 2.0, rate: float = 0.1, steps: int = 20, delta: float = 1e-5) -> float:
        return epsilon_of([(make_spec(noise_multiplier=noise, sampling_rate=rate), steps)], delta)

    base = cost()
    assert cost(steps=21) > base
    assert cost(rate=0.11) > base
    assert cost(noise=1.9) > base
    assert cost(delta=1e-6) > base


def test_edges(make_spec: Make) -> None:
    assert epsilon_of([], 1e-5) == 0.0
    assert epsilon_of([(make_spec(), 0)], 1e-5) == 0.0
    assert epsilon_of([(make_spec(noise_multiplier=0.0), 1)], 1e-5) == math.inf
    assert epsilon_of([(make_spec(), 3), (make_spec(noise_multiplier=0.0), 1)], 1e-5) == math.inf


def test_replace_one_costs_more_and_is_not_claimed_as_less(make_spec: Make) -> None:
    """Frozen: replace-one 7.19, zeroing-out as add-or-remove (same setting, sigma 1)."""
    common = {"noise_multiplier": 1.0, "sampling_rate": 0.0256}
    replaced = epsilon_of([(make_spec(relation="replace-one", **common), 780)], 1e-5)
    special = epsilon_of([(make_spec(relation="replace-special", **common), 780)], 1e-5)
    assert replaced == pytest.approx(7.19, abs=0.01)
    assert special == pytest.approx(4.512, abs=6e-4)


@pytest.mark.parametrize("change", [{"unit": "patient"}, {"relation": "replace-one"}])
def test_different_promises_are_never_added_up(make_spec: Make, change: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        epsilon_of([(make_spec(), 1), (make_spec(**change), 1)], 1e-5)


def test_truncated_sampling_is_refused_not_guessed(make_spec: Make) -> None:
    spec = make_spec(sampler="truncated-poisson", batch_cap=50)
    with pytest.raises(NotBuiltYet):
        epsilon_of([(spec, 1)], 1e-5)


@pytest.mark.parametrize(
    ("epsilon", "rate", "steps"), [(3.0, 0.3, 60), (1.0, 0.5, 10), (0.2, 1.0, 1), (8.0, 0.3, 20)]
)
def test_calibration_is_tight_and_rounded_up(
    make_spec: Make, epsilon: float, rate: float, steps: int
) -> None:
    noise = calibrate(epsilon=epsilon, delta=1e-4, sampling_rate=rate, steps=steps)
    assert noise == round(noise, 4)

    def cost(sigma: float) -> float:
        return epsilon_of([(make_spec(noise_multiplier=sigma, sampling_rate=rate), steps)], 1e-4)

    assert cost(noise) <= epsilon
    assert cost(noise - 2.5e-4) > epsilon


def test_calibration_gives_up_with_a_cure() -> None:
    with pytest.raises(InvalidInput, match="Cure"):
        calibrate(epsilon=1e-9, delta=1e-12, sampling_rate=1.0, steps=1)


def test_more_rounds_reported_means_more_epsilon(make_spec: Make) -> None:
    """An accountant rebuilt every round would print the same number for ever."""
    spec = make_spec(noise_multiplier=3.0, sampling_rate=0.3)
    spent = [epsilon_of([(spec, 1)] * rounds, 1e-4) for rounds in (1, 3, 10, 50)]
    assert spent == sorted(set(spent))

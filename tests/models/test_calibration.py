"""Threshold and temperature from counts: by hand, under shifts, noise and missing classes."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from collegium.edge.device import infer, open_session
from collegium.edge.export import export_onnx
from collegium.models.calibration import (
    LIMIT,
    Calibrate,
    fit_temperature,
    fit_threshold,
    score_histogram,
)
from collegium.models.metrics import auc

BIN = 2 * LIMIT / 64
CRITERIA = ("accuracy", "youden", "sensitivity")


def drawn(
    seed: int, *, shift: float = 0.0, heat: float = 1.0, size: int = 4000
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, 2) that say the truth but for a shift and a factor, and labels (n,)."""
    rng = np.random.default_rng(seed)
    score = rng.normal(size=size) * 2
    labels = (rng.random(size) < 1 / (1 + np.exp(-score))).astype(np.int64)
    return np.stack([np.zeros(size), (score + shift) * heat], axis=1), labels


def counts_of(outputs: np.ndarray, labels: np.ndarray, bins: int = 64) -> np.ndarray:
    return score_histogram(outputs, labels, bins)


def test_two_classes_are_counted_by_their_log_odds() -> None:
    # four bins of width 6: scores -7, -1, 1, 100, 12, and one that is no number: 0
    outputs = np.array([[7, 0], [1, 0], [0, 1], [0, 100], [-12, 0], [np.nan, 0.0]])
    counts = counts_of(outputs, np.array([0, 0, 1, 1, 1, 0]), 4)
    assert counts.tolist() == [[1, 1, 1, 0], [0, 0, 1, 2]]
    halves = score_histogram(outputs, np.array([0, 0, 1, 1, 1, 0]), 4, weights=np.full(6, 0.5))
    assert (halves == counts / 2).all()


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_beyond_every_bin_are_in_the_last_and_no_number_is_zero(classes: int) -> None:
    rest = [0.0] * (classes - 2)
    outputs = np.array([[*rest, 0.0, each] for each in (1e20, np.inf, 1e300, np.nan)])
    outputs[-1, 0] = 9.0  # what is left of a record that is no number is no score
    counts = counts_of(outputs, np.full(4, classes - 1), 4)
    if classes == 2:
        assert counts[1].tolist() == [0, 0, 1, 3]
        low = counts_of(outputs[:, ::-1], np.ones(4, dtype=np.int64), 4)
        assert low[1].tolist() == [3, 0, 1, 0]
    else:
        assert counts.sum(axis=0)[3] == 3


def test_more_classes_are_counted_by_whether_the_likeliest_is_right() -> None:
    # chances .8 .1 .1: log odds log 4, bin 2 of 4 either way; .98 and more: still bin 2 below 6
    outputs = np.log(np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]))
    counts = counts_of(outputs, np.array([0, 0, 2]), 4)
    # .4 has log odds log(2/3), below 0
    assert counts.tolist() == [[0, 0, 1, 0], [0, 1, 1, 0]]


def test_thresholds_by_hand() -> None:
    # bins of width 6 from -12: class 0 has 6 3 1 0 records, class 1 has 0 1 1 8
    counts = np.array([[6, 3, 1, 0], [0, 1, 1, 8]], dtype=np.float64)
    # youden at -12 -6 0 6 12: 0, .6, .9 - .1, 1 - .2, 0: edges 0 and 6 are equal: 3
    assert fit_threshold(counts, "youden") == pytest.approx(-3)
    assert fit_threshold(counts, "accuracy") == pytest.approx(-3)
    assert fit_threshold(counts * [[10], [1]], "accuracy") == pytest.approx(-6)
    # class 1 above each edge: 1, 1, .9, .8, 0
    assert fit_threshold(counts, "sensitivity", 0.85) == 0
    assert fit_threshold(counts, "sensitivity", 0.95) == 6
    assert fit_threshold(counts, "sensitivity", 0.8) == -6
    assert fit_threshold(counts, "none") == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([-3.0, 3.0]), st.sampled_from(CRITERIA))
def test_a_shift_of_three_is_repaired(seed: int, shift: float, criterion: str) -> None:
    """Shifted logits get the threshold that the unshifted ones get, three further on."""
    outputs, labels = drawn(seed)
    shifted = outputs + np.array([0.0, shift])
    # a shift by whole bins moves the counts and nothing else, but for those at the ends
    shift_in_bins = shift / BIN
    assert shift_in_bins == int(shift_in_bins)
    before = fit_threshold(counts_of(outputs, labels), criterion)
    after = fit_threshold(counts_of(shifted, labels), criterion)
    assert after == pytest.approx(before - shift, abs=1e-6)


def test_the_repaired_model_answers_as_well_as_before_and_ranks_as_before() -> None:
    outputs, labels = drawn(5)
    shifted = outputs + np.array([0.0, 3.0])
    layer = Calibrate(2)
    layer.set(offset=fit_threshold(counts_of(shifted, labels), "accuracy"))
    mended = layer(torch.from_numpy(shifted)).numpy()
    right = [(each.argmax(axis=1) == labels).mean() for each in (outputs, shifted, mended)]
    assert right[1] < right[0] - 0.1
    assert right[2] == pytest.approx(right[0], abs=0.01)
    assert auc(mended[:, 1] - mended[:, 0], labels) == pytest.approx(
        auc(outputs[:, 1], labels), abs=1e-6
    )


@pytest.mark.parametrize("heat", [0.3, 1.0, 3.0])
def test_the_temperature_is_that_of_the_records(heat: float) -> None:
    """The oracle fits every score; bins of .375 are coarse for scores that are mostly below 1."""
    outputs, labels = drawn(6, heat=heat)
    signs = 2 * labels - 1

    def surprise(log_t: float) -> float:
        return float(np.logaddexp(0, -signs * outputs[:, 1] / np.exp(log_t)).sum())

    exact = float(np.exp(minimize_scalar(surprise, bounds=(-3, 3), method="bounded").x))
    assert exact == pytest.approx(heat, rel=0.1)
    assert fit_temperature(counts_of(outputs, labels)) == pytest.approx(exact, rel=0.08)
    moved = outputs + np.array([0.0, 2.25])
    found = fit_temperature(counts_of(moved, labels), offset=-2.25)
    assert found == pytest.approx(exact, rel=0.08)


@pytest.mark.parametrize("classes", [3, 10])
@pytest.mark.parametrize("heat", [0.5, 1.0, 2.0, 4.0])
def test_more_classes_get_nearly_the_temperature_that_all_logits_give(
    classes: int, heat: float
) -> None:
    """Only the likeliest class's chance is counted; the oracle sees every logit."""
    rng = np.random.default_rng(classes)
    true = rng.normal(size=(4000, classes)) * 2
    chances = np.exp(log_softmax(true, axis=1))
    labels = (chances.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1).clip(max=classes - 1)
    outputs = true * heat

    def surprise(log_t: float) -> float:
        rows = log_softmax(outputs / np.exp(log_t), axis=1)
        return -float(rows[np.arange(4000), labels].sum())

    exact = float(np.exp(minimize_scalar(surprise, bounds=(-3, 3), method="bounded").x))
    found = fit_temperature(counts_of(outputs, labels), classes=classes)
    assert found == pytest.approx(exact, rel=0.2)


def test_a_site_with_one_class_changes_the_counts_of_the_others_only_by_its_records() -> None:
    outputs, labels = drawn(7)
    lonely = outputs[labels == 1][:50]
    alone = counts_of(lonely, np.ones(50, dtype=np.int64))
    assert alone[0].sum() == 0 and alone[1].sum() == 50
    assert [fit_threshold(alone, criterion) for criterion in CRITERIA] == [0, 0, 0]
    assert 0.05 <= fit_temperature(alone) <= 20
    together = fit_threshold(counts_of(outputs, labels) + alone, "youden")
    assert together == pytest.approx(fit_threshold(counts_of(outputs, labels), "youden"), abs=0.8)


@given(st.integers(0, 2**32 - 1), st.sampled_from([4, 64]), st.floats(0.1, 100.0))
def test_noise_alone_is_no_reason_to_change_anything(seed: int, bins: int, std: float) -> None:
    noise = np.random.default_rng(seed).normal(size=(2, bins)) * std
    noise = np.clip(noise, -2 * std, 2 * std)
    noise -= noise.mean()  # as much as nothing
    feigned = noise - noise.mean(axis=1, keepdims=True) + std / np.sqrt(bins)  # one deviation
    assert [fit_threshold(feigned, criterion, noise_std=std) for criterion in CRITERIA] == [0, 0, 0]
    assert fit_temperature(feigned, noise_std=std) == 1.0
    assert fit_temperature(noise, noise_std=std) == 1.0
    for nothing in (np.zeros((2, bins)), -np.ones((2, bins))):
        assert [fit_threshold(nothing, criterion) for criterion in CRITERIA] == [0, 0, 0]
        assert fit_temperature(nothing) == 1.0


@given(st.integers(0, 2**32 - 1))
def test_noised_counts_give_a_threshold_nearly_as_good(seed: int) -> None:
    """4000 records over 2 x 64 bins of noise 5: 22 of them are empty on average."""
    outputs, labels = drawn(8, shift=3.0)
    counts = counts_of(outputs, labels)
    noisy = counts + np.random.default_rng(seed).normal(size=counts.shape) * 5
    offset = fit_threshold(noisy, "accuracy", noise_std=5)
    right = ((outputs[:, 1] + offset > 0) == labels).mean()
    assert right > ((outputs[:, 1] - 3 > 0) == labels).mean() - 0.03


@pytest.mark.parametrize(
    ("heat", "std", "least", "most"), [(1.0, 10, 0.99, 1.01), (3.0, 3, 2.2, 3.0)]
)
def test_noise_heats_nothing_and_a_model_that_is_too_sure_is_still_cooled(
    heat: float, std: float, least: float, most: float
) -> None:
    outputs, labels = drawn(9, heat=heat)
    counts = counts_of(outputs, labels)
    rng = np.random.default_rng(0)
    noisy = [counts + rng.normal(size=counts.shape) * std for _ in range(20)]
    found = [fit_temperature(each, noise_std=std) for each in noisy]
    assert least <= np.median(found) <= most
    if heat == 1:  # cutting negative counts off would put records where none are
        cut_off = [fit_temperature(np.maximum(each, 0)) for each in noisy]
        assert np.median(cut_off) > 1.1


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=8, max_size=8), min_size=2, max_size=2),
    st.sampled_from(CRITERIA),
    st.integers(2, 20),
)
def test_any_counts_give_finite_values_in_range(
    rows: list[list[float]], criterion: str, classes: int
) -> None:
    counts = np.array(rows)
    assert abs(fit_threshold(counts, criterion)) <= LIMIT
    assert 0.05 <= fit_temperature(counts, classes=classes) <= 20.0001


def test_the_layer_is_the_identity_until_it_is_set() -> None:
    layer, x = Calibrate(3), torch.randn(4, 3)
    assert torch.equal(layer(x), x)
    layer.set(offset=1.5, temperature=2.0)
    torch.testing.assert_close(layer(x), (x + torch.tensor([0.0, 0.0, 1.5])) / 2)
    layer.set()
    assert torch.equal(layer(x), x)
    assert set(layer.state_dict()) == {"offset", "temperature"}
    assert layer.get_buffer("temperature").shape == (1,)


def test_the_fitted_layer_travels_in_the_exported_file() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), Calibrate(2)).eval()
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    plain = model(torch.from_numpy(x)).detach().numpy()
    layer = model[1]
    assert isinstance(layer, Calibrate)
    layer.set(offset=-2.0, temperature=4.0)
    found = infer(open_session(export_onnx(model, x)), x)
    np.testing.assert_allclose(found, (plain + np.array([0.0, -2.0])) / 4, rtol=1e-5, atol=1e-6)

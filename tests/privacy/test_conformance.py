"""The verdict over findings, and canary inputs against clippers that are right and wrong."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from collegium.privacy import conformance_insertion as insertion
from collegium.privacy.conformance import (
    Finding,
    checked,
    judge,
    measured,
    summary,
    threshold,
    unexercised,
)
from collegium.privacy.conformance_insertion import (
    AGREEMENT,
    DIVISOR,
    NONFINITE,
    SENSITIVITY,
    Canaries,
    Oracle,
    find_canaries,
    insertion_findings,
)

Array = np.ndarray[Any, Any]
NAMES = ("one.weight", "one.bias", "two.weight", "two.bias")


def test_the_level_is_shared_by_all_p_values() -> None:
    findings = [
        measured("a", "x", "", [2e-7, 0.5, 0.5]),
        measured("b", "x", "", [2.6e-7]),
        checked("c", "x", "", holds=False),
        checked("d", "x", "", holds=True),
        unexercised("e", "x", "nothing to bite on"),
    ]
    assert threshold(findings) == 1e-6 / 4
    outcomes = [finding.outcome for finding in judge(findings)]
    assert outcomes == ["failed", "passed", "failed", "passed", "not exercised"]
    assert summary(judge(findings)) == {"passed": 2, "failed": 2, "not exercised": 1}
    alone = [measured("a", "x", "", [2e-7, 0.5, 0.5])]
    assert judge(alone)[0].outcome == "failed"
    assert judge([measured("a", "x", "", [3.4e-7, 0.5, 0.5])])[0].outcome == "passed"


def test_what_is_no_number_fails() -> None:
    assert judge([measured("a", "x", "", [float("nan"), 0.5])])[0].outcome == "failed"


def test_a_finding_as_plain_values() -> None:
    assert measured("a", "x", "text", [0.25, 0.5]).to_dict() == {
        "name": "a", "site": "x", "statistic": "text", "p_value": 0.25, "p_values": 2,
        "verdict": "passed", "note": "",
    }  # fmt: skip


class Net(nn.Module):
    """Two layers; its gradients grow with the input."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Linear(3, 4), nn.Linear(4, 2)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.drop(torch.tanh(self.one(x))))


def loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of each record."""
    return nn.functional.cross_entropy(logits, labels, reduction="none")


def draw(rng: np.random.Generator, count: int) -> Array:
    """Inputs over several scales."""
    return (rng.standard_normal((count, 3)) * 10 ** rng.uniform(-1, 1, (count, 1))).astype(
        np.float32
    )


@pytest.fixture
def oracle() -> Oracle:
    """Plain autograd of the net."""
    return Oracle(Net(), NAMES, loss)


@pytest.fixture
def canaries(oracle: Oracle) -> Canaries:
    """One for each of two layers, one that spans both, four ordinary."""
    return find_canaries(oracle, draw, np.random.default_rng(0), classes=2)


def test_canaries_press_on_every_layer(oracle: Oracle, canaries: Canaries) -> None:
    assert oracle.layers == [[0, 1], [2, 3]]
    assert canaries.count == 3
    assert len(canaries.x) == 7
    assert canaries.owners.tolist() == list(range(7))
    units = list(oracle.unit_gradients(canaries.x, canaries.y, canaries.owners))
    np.testing.assert_allclose(canaries.norms, np.linalg.norm(units, axis=1))
    rest = draw(np.random.default_rng(5), 50)
    first = np.linalg.norm(oracle.tensor_norms(rest, np.zeros(50, dtype=np.int64))[:, :2], axis=1)
    own = np.concatenate(oracle.gradient(canaries.x[:1], canaries.y[:1])[:2])
    assert np.linalg.norm(own) > np.median(first)
    assert 0 < canaries.smallest < canaries.norms[2]


def test_the_oracle_by_hand() -> None:
    """A linear layer at zero: the gradient is (1/2 - onehot) outer (x, 1)."""
    model = nn.Sequential()
    model.add_module("head", nn.Linear(3, 2))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    found = Oracle(model, ("head.weight", "head.bias"), loss)
    x, y = np.array([[1.0, 2.0, -1.0]], dtype=np.float32), np.array([1])
    weight, bias = found.gradient(x, y)
    np.testing.assert_allclose(weight, [0.5, 1.0, -0.5, -0.5, -1.0, 0.5])
    np.testing.assert_allclose(bias, [0.5, -0.5])
    assert found.hardest(np.array([[1.0, 2.0, -1.0]], dtype=np.float32)).shape == (1,)


def test_a_patient_is_two_records(oracle: Oracle) -> None:
    found = find_canaries(oracle, draw, np.random.default_rng(0), classes=2, unit="patient")
    assert found.owners.tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5, 6]
    assert len(found.norms) == 7
    first = next(iter(oracle.unit_gradients(found.x, found.y, found.owners)))
    parts = [np.concatenate(oracle.gradient(found.x[[i]], found.y[[i]])) for i in (0, 3)]
    np.testing.assert_allclose(first, (parts[0] + parts[1]) / 2)


Clip = Callable[[Array, float], Array]
"""One unit's gradient (d,) and C to its contribution (d,)."""


def flat(gradient: Array, bound: float) -> Array:
    """The right one."""
    if not np.isfinite(gradient).all():
        return np.zeros_like(gradient)
    return gradient * min(1.0, bound / max(float(np.linalg.norm(gradient)), 1e-300))


def per_tensor(gradient: Array, bound: float) -> Array:
    """Each of the four tensors is clipped to C."""
    return np.concatenate([flat(part, bound) for part in np.split(gradient, [12, 16, 24])])


def release_of(
    oracle: Oracle, clip: Clip, *, divisor: float = 1.0, pooled: bool = False
) -> insertion.Release:
    """A step made of one function per unit."""

    def release(x: Array, y: Array, owners: Array, bound: float) -> tuple[Array, Array]:
        own = owners if not pooled else np.arange(len(y))
        total = np.sum([clip(g, bound) for g in oracle.unit_gradients(x, y, own)], axis=0)
        return total, total.astype(np.float32).astype(np.float64) * divisor

    return release


def outcomes(findings: list[Finding]) -> dict[tuple[str, bool], str]:
    """The outcome by test, and whether it was at the plan's C."""
    return {(f.test, f.site.endswith("C = 1")): f.outcome for f in findings}


def run(oracle: Oracle, canaries: Canaries, *, clip_norm: float = 1.0, **how: Any) -> Any:
    """The findings of a step under test."""
    clip = how.pop("clip", flat)
    release = release_of(oracle, clip, **how)
    return insertion_findings("this build", release, oracle, canaries, clip_norm=clip_norm)


def test_right_clipping_passes_everywhere(oracle: Oracle, canaries: Canaries) -> None:
    found = outcomes(run(oracle, canaries))
    tests = (SENSITIVITY, NONFINITE, AGREEMENT, DIVISOR)
    assert found == {(test, where): "passed" for test in tests for where in (True, False)}


@pytest.mark.parametrize(
    ("how", "fails"),
    [
        ({"clip": lambda g, c: flat(g, 1e30)}, {SENSITIVITY, AGREEMENT}),
        ({"clip": lambda g, c: flat(g, 2 * c)}, {SENSITIVITY, AGREEMENT}),
        ({"clip": lambda g, c: flat(g, 1.0001 * c)}, {SENSITIVITY}),
        ({"clip": per_tensor}, {SENSITIVITY, AGREEMENT}),
        ({"clip": lambda g, c: flat(g, c) / 24}, {AGREEMENT}),
        ({"divisor": 24 / 20}, {DIVISOR}),
        ({"clip": lambda g, c: g * min(1.0, c / np.linalg.norm(g))}, {NONFINITE}),
    ],
)
def test_wrong_clipping_fails(
    oracle: Oracle, canaries: Canaries, how: dict[str, Any], fails: set[str]
) -> None:
    found = run(oracle, canaries, **how)
    assert {f.test for f in found if f.outcome == "failed"} >= fails


def test_clipping_that_is_not_needed_is_not_exercised(oracle: Oracle, canaries: Canaries) -> None:
    """At a C above every gradient nothing is shown; the small C still shows it."""
    found = run(oracle, canaries, clip_norm=1e6, clip=lambda g, c: g)
    there = {(f.test, f.site.endswith("1e+06")): f.outcome for f in found}
    assert there[SENSITIVITY, True] == "not exercised"
    assert there[SENSITIVITY, False] == "failed"


def test_clipping_records_where_patients_are_promised(oracle: Oracle) -> None:
    canaries = find_canaries(oracle, draw, np.random.default_rng(0), classes=2, unit="patient")
    assert {f.outcome for f in run(oracle, canaries)} == {"passed"}
    found = {f.test for f in run(oracle, canaries, pooled=True) if f.outcome == "failed"}
    assert AGREEMENT in found


def test_a_sum_of_another_length_disagrees(oracle: Oracle, canaries: Canaries) -> None:
    honest = release_of(oracle, flat)

    def longer(x: Array, y: Array, owners: Array, bound: float) -> tuple[Array, Array]:
        total, released = honest(x, y, owners, bound)
        return total, np.append(released, 1.0)

    found = insertion_findings("this build", longer, oracle, canaries, clip_norm=1.0)
    assert {f.test for f in found if f.outcome == "failed"} == {DIVISOR}

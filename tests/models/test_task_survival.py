"""Survival: a loss per record, by hand, and the coefficients of Cox's model."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from collegium.core.plan import ModelRef
from collegium.models.task_base import Task
from collegium.models.task_survival import piecewise_exponential, risks, survival, survival_metrics

CUTS = (0.0, 50.0, 100.0)


def task_of(cuts: tuple[float, ...]) -> Task:
    return survival(ModelRef(name="plugin:a", task="survival", target=cuts))


def test_the_loss_by_hand() -> None:
    # f = log 2, hazards per 100 days: 1, 3 and 5; at day 75 half and a quarter have passed
    f, b = math.log(2), [0.0, math.log(3), math.log(5)]
    outputs = torch.tensor([[f, *b], [f, *b], [f, *b], [f, *b]])
    labels = torch.tensor([[75.0, 1.0], [75.0, 0.0], [200.0, 1.0], [0.0, 0.0]])
    spent = 2 * (1 * 0.5 + 3 * 0.25)
    late = 2 * (1 * 0.5 + 3 * 0.5 + 5 * 1.0)
    expected = [spent - math.log(6), spent, late - math.log(10), 0.0]
    found = piecewise_exponential(outputs, labels, cuts=CUTS)
    assert found.tolist() == pytest.approx(expected, abs=1e-6)


def test_a_first_cut_above_zero_still_begins_at_zero() -> None:
    outputs, labels = torch.zeros(1, 3), torch.tensor([[10.0, 1.0]])
    for first in (0.0, 30.0):
        loss = piecewise_exponential(outputs, labels, cuts=(first, 100.0))
        assert loss.tolist() == pytest.approx([0.1])


def test_a_wild_model_has_a_finite_loss_whose_gradient_leads_back() -> None:
    outputs = torch.tensor([[500.0, 0.0, 0.0, 0.0]], requires_grad=True)
    loss = piecewise_exponential(outputs, torch.tensor([[75.0, 1.0]]), cuts=CUTS)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert outputs.grad is not None and outputs.grad[0, 0] > 1000


def test_risks_rank_as_f_does_where_the_baseline_is_common() -> None:
    rng = np.random.default_rng(1)
    f = rng.normal(size=(20, 1))
    outputs = np.concatenate([f, np.tile([0.3, -1.0, 2.0], (20, 1))], axis=1)
    assert (np.argsort(risks(outputs, CUTS)) == np.argsort(f[:, 0])).all()


def test_risks_are_log_cumulative_hazards_at_the_last_time() -> None:
    # half the time at hazard 2 * 3, half at 2 * 1: 4; the open interval does not count
    row = [math.log(2), math.log(3), 0.0, 9.0]
    assert risks(np.array([row]), CUTS).tolist() == pytest.approx([math.log(4)])


def test_metrics_of_a_site_without_an_event() -> None:
    labels = np.array([[5.0, 0.0], [6.0, 0.0]], dtype=np.float32)
    assert survival_metrics(np.zeros((2, 4)), labels, cuts=CUTS) == {}
    labels[0, 1] = 1
    assert survival_metrics(np.zeros((2, 4)), labels, cuts=CUTS) == {"c_index": 0.5}


def drawn(size: int, beta: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, k) and labels (n, 2) with a rising hazard and a third of the times censored."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size, len(beta)))
    times = 100 * np.sqrt(rng.exponential(size=size) / np.exp(x @ beta))  # Weibull, shape 2
    ends = rng.uniform(20, 260, size)
    return x, np.stack([np.minimum(times, ends), times <= ends], axis=1)


def cox(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cox's coefficients (k,), from the negative log partial likelihood; no ties."""
    order = np.argsort(-labels[:, 0])
    x, event = x[order], labels[order, 1] > 0

    def cost(beta: np.ndarray) -> float:
        scores = x @ beta
        at_risk = np.logaddexp.accumulate(scores)  # everyone whose time is not before
        return float((at_risk - scores)[event].sum())

    return minimize(cost, np.zeros(x.shape[1]), method="BFGS").x


class Proportional(torch.nn.Module):
    """f = beta x and one baseline for all records."""

    def __init__(self, features: int, cuts: int) -> None:
        super().__init__()
        self.risk = torch.nn.Linear(features, 1, bias=False).double()
        self.baseline = torch.nn.Parameter(torch.zeros(cuts, dtype=torch.float64))
        torch.nn.init.zeros_(self.risk.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.risk(x), self.baseline.expand(len(x), -1)], dim=1)


def fitted(x: np.ndarray, labels: np.ndarray, cuts: tuple[float, ...]) -> np.ndarray:
    """The coefficients (k,) at which the separable loss is least."""
    model, made = Proportional(x.shape[1], len(cuts)), task_of(cuts)
    inputs, truth = torch.from_numpy(x), torch.from_numpy(labels)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=300, tolerance_grad=1e-9, line_search_fn="strong_wolfe"
    )

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = made.loss(model(inputs), truth).mean()
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return model.risk.weight.detach().numpy()[0]


def test_fine_intervals_give_the_coefficients_of_cox() -> None:
    beta = np.array([0.8, -0.5, 0.0])
    x, labels = drawn(1500, beta, seed=2)
    reference = cox(x, labels)
    assert reference == pytest.approx(beta, abs=0.12)
    fine = fitted(x, labels, tuple(np.linspace(0, 260, 41)))
    coarse = fitted(x, labels, (0.0, 260.0))
    assert fine == pytest.approx(reference, abs=0.01)
    assert np.abs(coarse - reference).max() > 5 * np.abs(fine - reference).max()


def test_the_differences_that_the_docs_tell() -> None:
    text = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    counts, told = (
        [float(cell) for cell in re.findall(r"[\d.]+", line)]
        for start in ("| closed intervals ", "| difference ")
        for line in text.splitlines()
        if line.startswith(start)
    )
    x, labels = drawn(1500, np.array([0.8, -0.5, 0.0]), seed=2)
    reference = cox(x, labels)
    for count, difference in zip(counts, told, strict=True):
        found = fitted(x, labels, tuple(np.linspace(0, 260, int(count) + 1)))
        assert np.abs(found - reference).max() == pytest.approx(difference, abs=6e-4)


def test_the_ranking_it_learns_is_as_good_as_the_true_one() -> None:
    beta = np.array([0.8, -0.5, 0.0])
    x, labels = drawn(1500, beta, seed=2)
    other, truth = drawn(800, beta, seed=3)
    cuts = (0.0, 50.0, 100.0, 150.0, 200.0)
    learnt = fitted(x, labels, cuts)
    baseline = np.zeros((800, len(cuts)))
    made = task_of(cuts).metrics
    found, best = (
        made(np.concatenate([(other @ b)[:, None], baseline], axis=1), truth)["c_index"]
        for b in (learnt, beta)
    )
    assert best > 0.7
    assert found == pytest.approx(best, abs=0.01)

"""Outputs in batches, the model left as it was found; metrics by site."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from collegium.core.plan import ModelRef
from collegium.models import evaluate as module
from collegium.models.evaluate import (
    evaluate,
    finite_outputs,
    logits,
    records_at_once,
    site_metrics,
)
from collegium.models.tasks import task

TWO = task(ModelRef(name="plugin:a", task="classification", classes=("no", "yes")))


class Doubling(torch.nn.Module):
    """Returns the two inputs, doubled in eval mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.training else 2 * x


class Widening(torch.nn.Module):
    """A layer inside gives 4000 numbers, 16 kB per record; no record at all is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = torch.nn.Linear(3, 4000)
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) == 0:
            raise ValueError("cannot reshape")
        self.seen.append(len(x))
        return self.inside(x)[:, :2]


def test_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    x = np.arange(14, dtype=np.float64).reshape(7, 2)
    found = logits(Doubling(), x)
    assert found.dtype == np.float32
    assert found.tolist() == (2 * x).tolist()


def test_a_batch_fits_into_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMORY_BYTES", 10 * 2 * 16_000)
    model, x = Widening(), np.zeros((25, 3), dtype=np.uint8)
    assert records_at_once(model, x) == 10
    model.seen.clear()
    assert logits(model, x).shape == (25, 2)
    assert model.seen == [1, 10, 10, 5]
    monkeypatch.setattr(module, "MEMORY_BYTES", 1)
    assert records_at_once(model, x) == 1
    assert not model.inside._forward_hooks


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_restored(training: bool) -> None:
    model = Doubling().train(training)
    assert logits(model, np.ones((2, 2))).tolist() == [[2, 2], [2, 2]]
    assert model.training is training


def test_whole_numbers_and_read_only_arrays_are_taken() -> None:
    x = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    x.setflags(write=False)
    found = evaluate(Doubling(), TWO, x, np.array([1, 1]))
    assert found["accuracy"] == 0.5


def test_tokens_reach_the_model_exactly() -> None:
    tokens = np.array([[2**24 - 1, 7], [0, 30521]], dtype=np.int32)
    assert logits(Doubling(), tokens).tolist() == (2.0 * tokens).tolist()


def test_an_empty_set_has_no_outputs_and_no_metrics() -> None:
    assert logits(Widening(), np.zeros((0, 3))).shape == (0, 2)
    assert evaluate(Widening(), TWO, np.zeros((0, 3)), np.zeros(0, int)) == {}


def test_outputs_that_are_no_numbers_count_as_zeros() -> None:
    x = np.array([[np.nan, 1.0], [np.inf, 0.0], [0.0, 1.0]])
    found = evaluate(Doubling(), TWO, x, np.array([1, 0, 1]))
    assert found["accuracy"] == pytest.approx(2 / 3)  # 0 and 0 is class 0, also for the first
    assert all(np.isfinite(value) for value in found.values())


def test_a_record_with_one_bad_output_counts_as_zeros_in_all_of_them() -> None:
    """Only the bad one put to 0 would leave an answer that the model never gave."""
    outputs = np.array([[-5.0, np.inf], [3.0, np.nan], [1.0, 2.0]], dtype=np.float32)
    found = finite_outputs(outputs)
    assert found.tolist() == [[0, 0], [0, 0], [1, 2]]
    assert np.isinf(outputs[0, 1])  # the model's own outputs stay as they are
    masks = np.ones((2, 2, 1, 1), dtype=np.float32)
    masks[0, 1] = -np.inf
    assert finite_outputs(masks).reshape(2, 2).tolist() == [[0, 0], [1, 1]]
    assert finite_outputs(np.array([np.nan, 2.0])).tolist() == [0.0, 2.0]


def test_masks_are_kept_as_answers() -> None:
    """Pixels' outputs would take 4 bytes for each class; their answers take one."""
    made = task(ModelRef(name="plugin:a", task="segmentation", classes=("rest", "lung")))
    rng = np.random.default_rng(0)
    x, masks = rng.normal(size=(5, 2, 6, 7)), rng.integers(0, 2, (5, 6, 7))
    kept = logits(Doubling(), x, keep=made.compact)
    assert kept.shape == (5, 6, 7) and kept.dtype == np.uint8
    assert evaluate(Doubling(), made, x, masks) == made.metrics(2 * x, masks)
    spy = replace(made, metrics=lambda outputs, _: {str(outputs.dtype): float(outputs.ndim)})
    assert evaluate(Doubling(), spy, x, masks) == {"uint8": 3.0}


def test_each_site_counts_alike_whatever_its_size() -> None:
    # north: 3 of 4 right; south: 0 of 1, and it holds one class; as one set: 3 of 5
    outputs = np.array([[1, 0], [0, 1], [0, 1], [0, 1], [0, 1]], dtype=np.float32)
    labels, sites = np.array([0, 1, 1, 0, 0]), np.array(["n", "n", "n", "n", "s"])
    found = site_metrics(TWO, outputs, labels, sites)
    assert found["macro_accuracy"] == pytest.approx((3 / 4 + 0) / 2)
    assert list(found["by_site"]) == ["n", "s"]
    assert found["by_site"]["n"] == TWO.metrics(outputs[:4], labels[:4])
    assert "auc" not in found["by_site"]["s"]


def test_a_task_without_an_accuracy_has_no_mean_of_it() -> None:
    made = task(ModelRef(name="plugin:a", task="regression", target=(0.0, 1.0)))
    found = site_metrics(made, np.zeros((2, 1)), np.array([0.5, 0.75]), np.array(["a", "b"]))
    assert set(found) == {"by_site"}
    assert found["by_site"]["b"]["mae"] == pytest.approx(0.25)

"""Logits in batches, the model left as it was found."""

import numpy as np
import pytest
import torch

from collegium.models import evaluate as module
from collegium.models.evaluate import evaluate, logits
from collegium.models.tasks import task


class Doubling(torch.nn.Module):
    """Returns the two inputs, doubled in eval mode."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.training else 2 * x


def test_batches_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH", 3)
    x = np.arange(14, dtype=np.float64).reshape(7, 2)
    found = logits(Doubling(), x)
    assert found.dtype == np.float32
    assert found.tolist() == (2 * x).tolist()


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_restored(training: bool) -> None:
    model = Doubling().train(training)
    logits(model, np.zeros((1, 2)))
    assert model.training is training


def test_whole_numbers_and_read_only_arrays_are_taken() -> None:
    x = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    x.setflags(write=False)
    found = evaluate(Doubling(), task("classification"), x, np.array([1, 1]))
    assert found["accuracy"] == 0.5


def test_an_empty_set_has_no_logits_and_no_metrics() -> None:
    assert logits(Doubling(), np.zeros((0, 2))).shape == (0, 2)
    assert evaluate(Doubling(), task("classification"), np.zeros((0, 2)), np.zeros(0, int)) == {}

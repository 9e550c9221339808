"""How good a model is on a set of records: outputs in batches, metrics by task and by site."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .task_base import Floats, Labels, Task

BATCH = 1024  # records at once, at most
MEMORY_BYTES = 256 << 20  # that a batch's layers may take


def logits(
    model: nn.Module, x: NDArray[Any], *, keep: Callable[[Tensor], Tensor] | None = None
) -> NDArray[Any]:
    """Return the (n, outputs, ...) float32 outputs of (n, ...) raw values, in eval mode.

    ``keep`` says what of each batch's outputs is kept, and in which type. The model's mode is
    restored; records go to the device that the model is on.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            size = records_at_once(model, x)
            parts = [
                _kept(model, x[start : start + size], keep) for start in range(0, len(x), size)
            ]
            if not parts:  # no model need know what to do with no records
                return _kept(model, np.zeros((1, *x.shape[1:])), keep)[:0]
    finally:
        model.train(was_training)
    return np.concatenate(parts)


def records_at_once(model: nn.Module, x: NDArray[Any]) -> int:
    """Return how many records of ``x`` (n, ...) fit into ``MEMORY_BYTES``, at most ``BATCH``.

    One record goes through the model, and the largest of its layers' outputs is counted twice.
    """
    if len(x) <= 1:
        return 1
    largest = 1

    def look(_module: nn.Module, _inputs: Any, found: Any) -> None:
        nonlocal largest
        if isinstance(found, Tensor):
            largest = max(largest, found.numel() * found.element_size())

    hooks = [module.register_forward_hook(look) for module in model.modules()]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(_batch(model, x[:1]))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return int(np.clip(MEMORY_BYTES // (2 * largest), 1, BATCH))


def evaluate(model: nn.Module, task: Task, x: NDArray[Any], y: Labels) -> dict[str, float]:
    """Return the task's metrics of the model on (n, ...) raw values and their labels.

    A record whose outputs are not finite (a NaN in it, say) counts as answered with all zeros.
    """
    if len(y) == 0:
        return {}
    return task.metrics(finite_outputs(logits(model, x, keep=task.compact)), y)


def finite_outputs(outputs: NDArray[Any]) -> NDArray[Any]:
    """Return (n, ...) outputs in which a record with any that is not finite has zeros alone."""
    if outputs.dtype.kind != "f":
        return outputs
    finite = np.isfinite(outputs).all(axis=tuple(range(1, outputs.ndim)))
    if finite.all():
        return outputs
    clean = outputs.copy()
    clean[~finite] = 0.0
    return clean


def site_metrics(
    task: Task, outputs: Floats, labels: Labels, sites: NDArray[Any]
) -> dict[str, Any]:
    """Return the metrics of each site's test records, and what they are on average.

    ``outputs`` (n, ...), ``labels`` (n, ...) and ``sites`` (n,), the name of the site that each
    record is from. ``by_site`` holds each site's metrics, in the order of their names;
    ``macro_accuracy``, where answers have an accuracy, is the mean over the sites of theirs, so
    that a small site counts as much as a large one.
    """
    clean = finite_outputs(outputs)
    by_site = {
        str(name): task.metrics(clean[sites == name], labels[sites == name])
        for name in np.unique(sites)
    }
    found: dict[str, Any] = {"by_site": by_site}
    shares = [each["accuracy"] for each in by_site.values() if "accuracy" in each]
    if shares:
        found["macro_accuracy"] = float(np.mean(shares))
    return found


def _kept(
    model: nn.Module, x: NDArray[Any], keep: Callable[[Tensor], Tensor] | None
) -> NDArray[Any]:
    outputs = model(_batch(model, x)).to(torch.float32)
    return (outputs if keep is None else keep(outputs)).cpu().numpy()


def _batch(model: nn.Module, x: NDArray[Any]) -> Tensor:
    """Return raw records as float32, where the model is: a copy, for arrays may be read-only."""
    places = (each.device for each in (*model.parameters(), *model.buffers()))
    return torch.from_numpy(np.array(x, dtype=np.float32)).to(next(places, torch.device("cpu")))

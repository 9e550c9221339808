"""Kept features: the same answers as the whole model, computed once."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import torch
from torch import nn

from collegium.core.plan import ModelRef
from collegium.models import registry
from collegium.models.evaluate import logits
from collegium.models.resident import Features, Resident, is_resident

DIGITS = ModelRef(
    name="collegium:glyph-cnn",
    task="classification",
    classes=tuple("0123456789"),
    trainable="head",
)


def model() -> nn.Module:
    made = registry.build(DIGITS)
    nn.init.normal_(made.get_parameter("head.weight"), generator=torch.Generator().manual_seed(0))
    return made


def records(count: int) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 16, (count, 8, 8)).astype(np.float32)


def test_the_head_on_kept_features_answers_as_the_whole_model() -> None:
    whole, x = model(), records(50)
    kept = Resident(whole)
    found = logits(kept.alone, kept.features(x))
    np.testing.assert_allclose(found, logits(whole, x), rtol=1e-5, atol=1e-5)


def test_the_trunk_runs_once_for_each_array() -> None:
    whole, x = model(), records(20)
    kept = Resident(whole)
    seen: list[int] = []
    whole.body.register_forward_hook(lambda *_: seen.append(1))  # pyright: ignore
    first = kept.features(x)
    count = len(seen)
    assert kept.features(x) is first
    assert len(seen) == count > 0
    assert kept.features(x.copy()) is not first


def test_the_oldest_arrays_are_forgotten_and_computed_again() -> None:
    """Evaluations make arrays that are asked for once: without a bound all of them would stay."""
    trunk, shared = model(), Features(kept=2)
    kept = Resident(trunk, shared)
    arrays = [records(count) for count in (3, 4, 5)]
    first = kept.features(arrays[0])
    kept.features(arrays[1])
    assert kept.features(arrays[0]) is first  # and now the newest
    forgotten = weakref.ref(arrays.pop(1))
    kept.features(arrays[1])
    gc.collect()
    assert forgotten() is None
    assert kept.features(arrays[0]) is first
    assert len(shared._known) == len(shared._locks) == 2
    again = Features(kept=1)
    one, two = (Resident(trunk, again).features(each) for each in arrays)
    np.testing.assert_array_equal(one, first)
    np.testing.assert_array_equal(two, kept.features(arrays[1]))


def test_a_change_of_the_head_is_seen() -> None:
    whole, x = model(), records(5)
    kept = Resident(whole)
    before = logits(kept.alone, kept.features(x))
    with torch.no_grad():
        whole.get_parameter("head.bias").add_(1.0)
    np.testing.assert_allclose(logits(kept.alone, kept.features(x)), before + 1, atol=1e-5)


def test_only_a_frozen_trunk_without_fitted_layers_is_kept() -> None:
    table = ModelRef(
        name="tabular:linear",
        task="classification",
        classes=("a", "b"),
        trainable="head",
        bounds={"x": (0.0, 1.0)},
    )
    assert is_resident(model(), "head")
    assert not is_resident(model(), "bias")
    assert not is_resident(registry.build(table), "head")

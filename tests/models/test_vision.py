"""The glyph CNN: bounded features, per-record gradients, and its way to ONNX."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from collegium.data.glyphs import glyph_set
from collegium.models.vision import FEATURE_NORM, FEATURES, GlyphCNN


def images(count: int = 6) -> torch.Tensor:
    return torch.from_numpy(glyph_set(count, seed=5).x)


def test_features_have_one_norm_whatever_the_image() -> None:
    x = torch.cat([images(), torch.zeros(1, 8, 8), torch.full((1, 8, 8), 16.0)])
    norms = GlyphCNN().features(x).norm(dim=1)
    assert norms.shape == (8,)
    assert torch.allclose(norms, torch.full((8,), FEATURE_NORM), rtol=1e-3)


def test_one_record_does_not_change_anothers_logits() -> None:
    model, x = GlyphCNN().train(), images()
    alone, together = model(x[:1]), model(x)[:1]
    assert torch.allclose(alone, together, atol=1e-5)


def test_there_is_no_state_beside_the_parameters() -> None:
    model = GlyphCNN()
    assert list(model.buffers()) == []
    assert 50_000 <= sum(p.numel() for p in model.parameters()) <= 120_000


def test_the_heads_gradient_per_record_has_the_norm_worked_by_hand() -> None:
    # A zero head answers 1/10 for each class: |p - y| = sqrt(.9^2 + 9 * .1^2) = sqrt(.9); the
    # head reads features of norm F and a constant 1: norm sqrt(.9) * sqrt(F^2 + 1).
    model = GlyphCNN()
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    torch.nn.functional.cross_entropy(model(images(1)), torch.tensor([3])).backward()
    squared = sum(
        float(p.grad.square().sum()) for p in model.head.parameters() if p.grad is not None
    )
    assert np.sqrt(squared) == pytest.approx(np.sqrt(0.9 * (FEATURE_NORM**2 + 1)), rel=1e-3)


def test_opacus_gives_the_gradients_of_single_records() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # opacus imports deprecated names of torch
        from opacus.grad_sample import GradSampleModule

        model, x, y = GlyphCNN(), images(4), torch.tensor([0, 1, 2, 3])
        single = []
        for i in range(4):
            model.zero_grad()
            torch.nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
            single.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
        model.zero_grad()
        hooked = GradSampleModule(model, loss_reduction="sum")
        torch.nn.functional.cross_entropy(hooked(x), y, reduction="sum").backward()
        for index, parameter in enumerate(model.parameters()):
            expected = torch.stack([grads[index] for grads in single])
            assert torch.allclose(parameter.grad_sample, expected, atol=1e-5)


def test_the_exported_graph_takes_raw_pixels_and_agrees(tmp_path: Path) -> None:
    import onnxruntime

    model, path = GlyphCNN().eval(), tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns about its own internals
        torch.onnx.export(
            model, (images(2),), str(path), dynamo=True, external_data=False, verbose=False,
            input_names=["x"], dynamic_shapes=({0: torch.export.Dim("batch")},),
        )  # fmt: skip
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": images(5).numpy()})
    with torch.no_grad():
        assert np.allclose(found, model(images(5)).numpy(), atol=1e-4)


def test_the_head_reads_the_features() -> None:
    assert GlyphCNN(classes=3).head.weight.shape == (3, FEATURES)

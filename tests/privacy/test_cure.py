"""A cured model computes what the original did, and is ready to train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import LayerNorm2d
from torchvision.ops import StochasticDepth

from collegium.core.errors import InvalidInput
from collegium.core.mechanism import MechanismSpec
from collegium.privacy.clipping import make_clipper
from collegium.privacy.cure import cure, original_state
from collegium.privacy.frozen import FrozenNorm
from collegium.privacy.noise import SeededNoise
from collegium.privacy.readiness import check, may_train
from collegium.privacy.step import private_gradient


def tiny_vit() -> nn.Module:
    model = models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=12, num_heads=2, hidden_dim=12, mlp_dim=8
    )
    nn.init.normal_(model.heads[-1].weight)
    return model.eval()


def settled(norm: Any) -> Any:
    """Give a norm statistics and an affine part that tell whether they were kept."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, value in norm.state_dict().items():
            if name != "num_batches_tracked":
                value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    return norm


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(3), (4, 3)),
        (nn.BatchNorm1d(3), (4, 3, 5)),
        (nn.BatchNorm2d(3, eps=1e-2), (4, 3, 5, 5)),
        (nn.BatchNorm2d(3, affine=False, momentum=None), (4, 3, 5, 5)),
        (nn.BatchNorm3d(3), (4, 3, 2, 2, 2)),
        (nn.SyncBatchNorm(3), (4, 3, 5)),
        (nn.InstanceNorm2d(3, track_running_stats=True, affine=True), (4, 3, 5, 5)),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_statistics_are_kept_for_good(norm: nn.Module, shape: tuple[int, ...]) -> None:
    original = nn.Sequential(settled(norm)).eval()
    x = 3 * torch.randn(*shape) + 1
    expected: Tensor = original(x)
    cured, (change,) = cure(original)
    assert isinstance(cured[0], FrozenNorm)  # type: ignore[index]
    torch.testing.assert_close(cured.train()(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(cured.requires_grad_(True)(x), expected, rtol=1e-6, atol=1e-6)
    assert not list(cured.parameters())
    assert cured.state_dict().keys() == original.state_dict().keys()
    original.load_state_dict(cured.state_dict())
    assert "layer '0'" in change.where and "frozen" in change.what
    assert check(cured) == []


def test_statistics_do_not_move() -> None:
    cured = cure(nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 2))).model.train()
    before = {name: value.clone() for name, value in cured.state_dict().items()}
    cured(torch.randn(8, 3)).sum().backward()
    assert all(torch.equal(value, before[name]) for name, value in cured.state_dict().items())


def test_without_statistics_nothing_can_be_frozen() -> None:
    cured, changes = cure(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)))
    assert changes == () and len(check(cured)) == 1


def test_the_given_model_stays_as_it_is() -> None:
    original = nn.Sequential(
        nn.BatchNorm1d(3), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Embedding(3, 2, max_norm=0.1)
    )
    before = {name: value.clone() for name, value in original.state_dict().items()}
    cured, changes = cure(original)
    assert len(changes) == 4
    assert isinstance(original[0], nn.BatchNorm1d)
    assert original[1].inplace and original[2].p == 0.5 and original[3].max_norm == 0.1
    with torch.no_grad():
        for value in cured.parameters():
            value.add_(1.0)
    assert all(torch.equal(value, before[name]) for name, value in original.state_dict().items())


def test_a_second_cure_changes_nothing() -> None:
    first = cure(tiny_vit())
    second = cure(first.model)
    assert len(first.changes) == 14 and second.changes == ()


def test_random_layers_fall_silent() -> None:
    model = nn.Sequential(
        nn.Linear(8, 8), nn.Dropout(0.9), StochasticDepth(0.9, "row"), nn.AlphaDropout(0.9),
        nn.Linear(8, 2),
    )  # fmt: skip
    x = torch.randn(5, 8)
    expected = model.eval()(x)
    assert not torch.equal(model.train()(x), expected)
    cured, changes = cure(model)
    torch.testing.assert_close(cured.train()(x), expected)
    assert len(changes) == 3 and check(cured, example=x) == []


def test_in_place_modules_and_checkpointing() -> None:
    model = nn.Sequential(nn.Conv3d(1, 2, 1), nn.Hardswish(inplace=True))
    model.gradient_checkpointing = True
    cured, changes = cure(model)
    assert [change.where for change in changes] == ["the model", "layer '1'"]
    assert check(cured) == [] and len(check(model)) == 2
    x = torch.randn(2, 1, 3, 3, 3)
    torch.testing.assert_close(cured(x), model(x))


def test_a_table_is_rescaled_once() -> None:
    model = nn.Sequential(nn.Embedding(4, 3, max_norm=0.5))
    tokens = torch.arange(4)[:, None]
    cured, _ = cure(model)
    rows = cured(tokens)
    torch.testing.assert_close(rows, model(tokens))
    assert float(rows.detach().norm(dim=-1).max()) <= 0.5 + 1e-6 and check(cured) == []


def test_what_cannot_be_followed_is_frozen_and_the_rest_trains() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.position_embeddings = nn.Embedding(7, 4), nn.Embedding(6, 4)
            self.class_token = nn.Parameter(torch.zeros(1, 1, 4))
            self.extra = nn.ParameterList([torch.zeros(4)])
            self.up, self.down = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
            self.down.weight = self.up.weight
            self.memory = nn.LSTM(4, 4, batch_first=True)
            self.head = nn.Linear(4, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.words(tokens) + self.position_embeddings(torch.arange(tokens.shape[1]))[None]
            x = self.memory(x + self.class_token + self.extra[0])[0]
            return self.head(self.down(self.up(x)).mean(1))

    model = Model()
    cured, changes = cure(model)
    trains = [name for name, value in cured.named_parameters() if value.requires_grad]
    assert trains == ["words.weight", "head.weight", "head.bias"] == may_train(model)
    assert len(changes) == 5
    assert all(str(change).startswith(change.where) for change in changes)
    tokens = torch.randint(7, (3, 6))
    assert check(cured, example=tokens) == []
    torch.testing.assert_close(cured(tokens), model(tokens))


def test_adapters_on_a_cured_transformer() -> None:
    """With projections of their own, attention modules take LoRA on queries and values."""
    peft = pytest.importorskip("peft")
    cured = cure(tiny_vit()).model
    options = peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(cured, options)
    trains = [name for name, value in adapted.named_parameters() if value.requires_grad]
    assert len(trains) == 12 * 2 * 2
    assert check(adapted, example=torch.randn(2, 3, 32, 32)) == []


def test_adapters_on_torchs_own_attention_are_refused() -> None:
    """peft adds them to the weights and calls no layer; cured first, the model takes them."""
    peft = pytest.importorskip("peft")
    options = peft.LoraConfig(r=2, target_modules=["self_attention"], init_lora_weights=False)
    adapted = peft.get_peft_model(tiny_vit(), options).eval()
    found = check(adapted)
    assert len(found) == 12 and all("hands its weights" in problem.what for problem in found)
    cured, changes = cure(adapted)
    assert {change.kind for change in changes} == {"parameters frozen"}
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(cured(x), adapted(x))


def test_frozen_statistics_under_autocast() -> None:
    cured = cure(nn.Sequential(nn.Conv2d(1, 2, 1), settled(nn.BatchNorm2d(2)))).model
    x = torch.randn(2, 1, 3, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = cured(x)
    torch.testing.assert_close(found.float(), cured(x), rtol=0.02, atol=0.02)


def test_a_wrapper_is_taken_off() -> None:
    model = nn.DataParallel(nn.Sequential(nn.Linear(2, 2), nn.MultiheadAttention(2, 1)))
    cured, changes = cure(model)
    assert isinstance(cured, nn.Sequential) and len(changes) == 2
    state = original_state(cured.state_dict(), changes)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def test_the_same_module_twice_gets_the_same_twin() -> None:
    norm, relu = settled(nn.BatchNorm1d(3)), nn.ReLU(inplace=True)
    cured = cure(nn.Sequential(norm, relu, nn.Sequential(norm, relu))).model
    assert cured[0] is cured[2][0]  # type: ignore[index]


def test_a_container_under_two_names_keeps_both_names() -> None:
    block = nn.Sequential(nn.MultiheadAttention(2, 1), nn.BatchNorm1d(2))
    model = nn.Sequential(block, nn.ReLU(), block)
    cured, changes = cure(model)
    state = original_state(cured.state_dict(), changes)
    assert state.keys() == model.state_dict().keys()


def test_released_tensors_go_back_by_name() -> None:
    attention = nn.MultiheadAttention(4, 2, batch_first=True, kdim=3, vdim=5)
    model = nn.Sequential(LayerNorm2d(3), nn.Flatten(), attention, nn.MultiheadAttention(4, 2))
    cured, changes = cure(model)
    state = original_state(cured.state_dict(), changes)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    names = ("0.norm.weight", "2.q_proj.weight", "3.out_proj.bias")
    some = {name: cured.get_parameter(name) for name in names}
    assert set(original_state(some, changes)) == {
        "0.weight", "2.q_proj_weight", "3.out_proj.bias"
    }  # fmt: skip
    with pytest.raises(InvalidInput, match=r"3\.in_proj_weight"):
        original_state({"3.q_proj.weight": cured.get_parameter("3.q_proj.weight")}, changes)


def test_a_channel_norm_keeps_its_function() -> None:
    original = nn.Sequential(LayerNorm2d(3, eps=1e-3), LayerNorm2d(3, elementwise_affine=False))
    with torch.no_grad():
        original[0].weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        original[0].bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    x = torch.randn(2, 3, 4, 5)
    cured, _ = cure(original)
    torch.testing.assert_close(cured(x), original(x))
    assert check(cured) == [] and len(check(original)) == 1


@pytest.mark.slow
def test_resnet18_takes_a_private_step(make_spec: Callable[..., MechanismSpec]) -> None:
    """Unmodified but for its BatchNorm: residual additions and in-place ReLUs are its own."""
    torch.manual_seed(6)
    torch.set_num_threads(1)
    original = models.resnet18(weights=None, num_classes=3)
    for module in original.modules():
        if isinstance(module, nn.BatchNorm2d):
            settled(module)
    original.eval()
    cured, changes = cure(original)
    assert sum("frozen" in change.what for change in changes) == 20
    x = torch.randn(6, 3, 32, 32)
    torch.testing.assert_close(cured.train()(x), original(x), rtol=1e-5, atol=1e-5)
    names = [name for name in may_train(cured) if name.startswith(("layer4.1", "fc"))]
    parameters = [cured.get_parameter(name) for name in names]

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, y, reduction="none")

    spec = make_spec(noise_multiplier=0.0, clip_norm=0.3, sampling_rate=1.0, normaliser=1.0)
    y = np.array([0, 1, 2, 0, 1, 2])
    clipper = make_clipper(cured, parameters, loss)
    stream = SeededNoise(0).stream(site="s", round=0, step=0)
    one = private_gradient(spec, clipper, x[:1].numpy(), y[:1], stream)
    assert 0.29 < float(np.linalg.norm(one)) <= 0.3 * (1 + 1e-6)
    every = private_gradient(spec, clipper, x.numpy(), y, stream)
    assert float(np.linalg.norm(every)) <= 6 * 0.3 * (1 + 1e-6)
    alone = [
        private_gradient(spec, clipper, x[i : i + 1].numpy(), y[i : i + 1], stream)
        for i in range(6)
    ]
    np.testing.assert_allclose(every, np.sum(alone, axis=0), atol=1e-5)
    noisy = private_gradient(
        make_spec(sampling_rate=1.0, normaliser=6.0), clipper, x.numpy(), y, stream
    )
    assert np.isfinite(noisy).all() and noisy.shape == (sum(p.numel() for p in parameters),)
    assert all(
        torch.equal(value, original.state_dict()[name])
        for name, value in cured.state_dict().items()
    )

"""What the book-keeping engine can follow, what it refuses, and its checks of itself."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint
from torchvision.models import resnet18
from torchvision.ops.misc import FrozenBatchNorm2d

from collegium.core.errors import ClipperMismatch, CollegiumError, InvalidInput
from collegium.models.task_classification import cross_entropy
from collegium.privacy import layer_chunk, layers
from collegium.privacy.bookkeeping import BookkeepingClipper

torch.set_num_threads(1)


class Lora(nn.Module):
    """A frozen layer plus two thin ones, B zero at first (Hu et al., 2106.09685)."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Linear(base.in_features, rank, bias=False)
        self.b = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 2 * self.b(self.a(x))


class Model(nn.Module):
    """Layers by name, and a forward pass that is given."""

    def __init__(self, forward: Callable[["Model", Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self._run = forward
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self._run(self, x)


def trained(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that require a gradient."""
    return [value for value in model.parameters() if value.requires_grad]


def clipper_of(model: nn.Module, **options: int) -> BookkeepingClipper:
    """The engine on all that trains."""
    return BookkeepingClipper(model, trained(model), cross_entropy, **options)


def oracle(model: nn.Module, x: Tensor, y: Tensor) -> np.ndarray:
    """(n, d) gradients by plain autograd, one record after the other."""
    rows = []
    for i in range(len(x)):
        loss = cross_entropy(model(x[i : i + 1]), y[i : i + 1]).sum()
        grads = torch.autograd.grad(loss, trained(model))
        rows.append(torch.cat([grad.flatten() for grad in grads]).double().numpy())
    return np.array(rows)


def agree(model: nn.Module, x: Tensor, y: Tensor, tolerance: float = 1e-4) -> None:
    """Norms and clipped sum equal the oracle's."""
    rows = oracle(model, x, y)
    norms = np.linalg.norm(rows, axis=1)
    clip = float(np.median(norms))
    clipper = clipper_of(model)
    np.testing.assert_allclose(clipper.per_unit_norms(x, y), norms, rtol=tolerance)
    expected = np.minimum(1, clip / norms) @ rows
    found = clipper.clipped_sum(x, y, clip)
    assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


def labels(count: int) -> Tensor:
    """Two classes in turn."""
    return torch.arange(count) % 2


def test_worked_by_hand() -> None:
    """Logits 0 give probabilities 1/2, so g = (-1/2, 1/2) for class 0 and a = (3, 4): the weight
    gradient has norm |g| |a| = 5 / sqrt(2), the bias gradient 1 / sqrt(2): together sqrt(13)."""
    model = nn.Linear(2, 2)
    for value in model.parameters():
        nn.init.zeros_(value)
    x, y = torch.tensor([[3.0, 4.0]]), torch.tensor([0])
    clipper = clipper_of(model)
    assert clipper.per_unit_norms(x, y)[0] == pytest.approx(13**0.5, rel=1e-5)
    expected = np.array([-1.5, -2, 1.5, 2, -0.5, 0.5])
    np.testing.assert_allclose(clipper.clipped_sum(x, y, 10.0), expected, rtol=1e-6)
    np.testing.assert_allclose(clipper.clipped_sum(x, y, 1.0), expected / 13**0.5, rtol=1e-5)
    # Twice the record and its opposite label: the unit's mean gradient is zero.
    both = clipper.clipped_sum(x.repeat(2, 1), torch.tensor([0, 1]), 1.0, units=np.array([0, 0]))
    np.testing.assert_allclose(both, np.zeros(6), atol=1e-7)


@contextmanager
def counted(name: str) -> Iterator[list[int]]:
    """Count the calls of an autograd function's backward by its profiler name."""
    calls = [0]
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        yield calls
    calls[0] = sum(event.count for event in seen.key_averages() if event.key == name)


def test_a_frozen_trunk_is_not_differentiated() -> None:
    """One trained layer at the top: no convolution runs backward."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4, 2)),
    )
    for value in model[:4].parameters():
        value.requires_grad_(False)
    x, y = torch.randn(3, 1, 5, 5), labels(3)
    clipper = clipper_of(model)
    clipper.clipped_sum(x, y, 1.0)
    with counted("ConvolutionBackward0") as calls:
        clipper.clipped_sum(x, y, 1.0)
    assert calls == [0]
    model[2].requires_grad_(True)
    clipper = clipper_of(model)
    clipper.clipped_sum(x, y, 1.0)
    with counted("ConvolutionBackward0") as calls:
        clipper.clipped_sum(x, y, 1.0)
    assert calls == [0]  # nor the lowest trained one: what flows into it is not needed
    agree(model, x, y)


def test_lora_behind_a_zero_matrix() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Lora(nn.Linear(6, 8), 2), nn.Tanh(), Lora(nn.Linear(8, 4), 2))
    model = nn.Sequential(*model, nn.Flatten(), nn.Linear(12, 2))
    agree(model, torch.randn(5, 3, 6), labels(5))
    for value in trained(model):
        nn.init.normal_(value)
    agree(model, torch.randn(5, 3, 6), labels(5))


def test_torchvision_resnet_as_it_is_with_frozen_batch_norm() -> None:
    """Residual sums and ReLUs in place, no layer replaced (the trap O1 of Opacus)."""
    torch.manual_seed(0)
    model = resnet18(num_classes=2, norm_layer=FrozenBatchNorm2d).train()
    agree(model, torch.randn(3, 3, 32, 32), labels(3))


def test_in_place_changes_of_trained_layers_outputs() -> None:
    """GroupNorm trains here, and the residual sum and ReLU overwrite what it gave."""
    torch.manual_seed(0)
    model = Model(
        lambda m, x: m.head(torch.relu_(m.norm(m.conv(x)).add_(x[:, :1])).mean((2, 3))),
        conv=nn.Conv2d(2, 4, 3, padding=1),
        norm=nn.GroupNorm(2, 4),
        head=nn.Linear(4, 2),
    )
    agree(model, torch.randn(4, 2, 5, 5), labels(4))


def test_in_place_change_of_a_linear_layers_output_which_is_a_view() -> None:
    torch.manual_seed(0)
    model = Model(
        lambda m, x: m.head(torch.relu_(m.body(x)).mean(1)),
        body=nn.Linear(3, 4),
        head=nn.Linear(4, 2),
    )
    agree(model, torch.randn(4, 5, 3), labels(4))


def test_an_input_changed_in_place_is_refused() -> None:
    model = Model(
        lambda m, x: m.head(m.body(h := x + 0) + h.mul_(2)),
        body=nn.Linear(3, 3),
        head=nn.Linear(3, 2),
    )
    with pytest.raises(InvalidInput, match=r"'body' .* changed in place"):
        clipper_of(model).clipped_sum(torch.ones(2, 3), labels(2), 1.0)


def test_a_layer_that_is_called_twice_is_refused() -> None:
    model = Model(
        lambda m, x: m.head(m.body(m.body(x))), body=nn.Linear(3, 3), head=nn.Linear(3, 2)
    )
    with pytest.raises(InvalidInput, match=r"'body' .* more than once"):
        clipper_of(model).clipped_sum(torch.ones(2, 3), labels(2), 1.0)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_is_refused(reentrant: bool) -> None:
    model = Model(
        lambda m, x: m.head(checkpoint(m.body, m.stem(x), use_reentrant=reentrant)),
        stem=nn.Linear(3, 3),
        body=nn.Sequential(nn.Linear(3, 3), nn.Tanh()),
        head=nn.Linear(3, 2),
    )
    with pytest.raises(InvalidInput, match="checkpointing"):
        clipper_of(model).clipped_sum(torch.ones(2, 3), labels(2), 1.0)
    assert not any(module._forward_hooks for module in model.modules())


def test_weights_used_without_their_layer_are_refused() -> None:
    parts = {"body": nn.Linear(3, 3), "head": nn.Linear(3, 2)}
    model = Model(lambda m, x: m.head(functional.linear(x, m.body.weight)), **parts)
    with pytest.raises(InvalidInput, match=r"'body' .* was not called"):
        clipper_of(model).clipped_sum(torch.ones(2, 3), labels(2), 1.0)
    model = Model(
        lambda m, x: m.head(torch.tanh(functional.linear(m.body(x), m.body.weight))), **parts
    )
    with pytest.raises(ClipperMismatch, match="autograd"):
        clipper_of(model).clipped_sum(torch.ones(2, 3), labels(2), 1.0)


@pytest.mark.parametrize(
    "mix",
    [
        lambda h: h - h.mean(0),
        lambda h: h * h.std(),
        lambda h: torch.cat([h[1:], h[:1]]),
        lambda h: functional.dropout(h, 0.5),
    ],
    ids=["centred", "scaled", "shifted", "random"],
)
def test_records_that_mix_outside_any_layer_fail_the_self_check(
    mix: Callable[[Tensor], Tensor],
) -> None:
    model = Model(lambda m, x: m.head(mix(m.body(x))), body=nn.Linear(3, 3), head=nn.Linear(3, 2))
    with pytest.raises(ClipperMismatch):
        clipper_of(model).clipped_sum(torch.randn(1, 3), labels(1), 1.0)


def test_the_self_check_sees_behind_a_zero_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a zero head all gradients below are zero, right or wrong; so weights are moved."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    nn.init.zeros_(model[2].weight)

    def wrong(*given: object) -> object:
        found = layers.linear(*given)  # type: ignore[arg-type]
        rows = found["bias"]._rows  # type: ignore[attr-defined]
        rows *= 2 if rows.shape[1] == 4 else 1
        return found

    known = (wrong, frozenset({"weight", "bias"}))
    monkeypatch.setattr(layers, "RULES", {nn.Linear: known})
    before = model[2].weight.clone()
    with pytest.raises(ClipperMismatch):
        clipper_of(model).clipped_sum(torch.ones(2, 3), labels(2), 1.0)
    assert torch.equal(model[2].weight, before)


def test_the_self_check_runs_once_and_on_no_record() -> None:
    seen: list[Tensor] = []

    def run(model: Model, x: Tensor) -> Tensor:
        seen.append(x)
        return model.head(x)

    clipper = clipper_of(Model(run, head=nn.Linear(3, 2)))
    x = torch.full((2, 3), 1234.5)
    clipper.clipped_sum(x, labels(2), 1.0)
    assert len(seen) > 1
    assert not any((part == 1234.5).any() for part in seen[:-1])
    first = len(seen)
    clipper.clipped_sum(x, labels(2), 1.0)
    assert len(seen) == first + 1


def test_a_position_table_that_sees_one_row_is_refused() -> None:
    model = Model(
        lambda m, x: m.head((m.words(x) + m.places(torch.arange(3)[None])).mean(1)),
        words=nn.Embedding(5, 4),
        places=nn.Embedding(3, 4),
        head=nn.Linear(4, 2),
    )
    clipper = clipper_of(model)
    with pytest.raises(InvalidInput, match=r"'places' .* 1 rows .* 3 records"):
        clipper.clipped_sum(torch.ones(2, 3, dtype=torch.int64), labels(2), 1.0)
    model.get_submodule("places").requires_grad_(False)
    agree(model, torch.tensor([[0, 1, 1], [2, 3, 4]]), labels(2))


def test_a_loss_that_is_one_number_is_refused() -> None:
    model = nn.Linear(3, 2)
    clipper = BookkeepingClipper(model, trained(model), functional.cross_entropy)
    with pytest.raises(InvalidInput, match="one loss for each record"):
        clipper.clipped_sum(torch.ones(2, 3), labels(2), 1.0)


def test_obstacles_are_named_all_at_once() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    model[1].bias.requires_grad_(False)
    stray = nn.Parameter(torch.zeros(7))
    with pytest.raises(InvalidInput) as caught:
        BookkeepingClipper(model, [*model.parameters(), stray, model[0].weight], cross_entropy)
    text = str(caught.value)
    assert "(7,): no layer" in text
    assert "it is frozen" in text
    assert "named twice" in text


@pytest.mark.parametrize("clip_norm", [0.0, -1.0, float("nan")])
def test_a_clip_norm_must_be_positive(clip_norm: float) -> None:
    with pytest.raises(InvalidInput, match="clip norm"):
        clipper_of(nn.Linear(3, 2)).clipped_sum(torch.ones(2, 3), labels(2), clip_norm)


def test_autocast_changes_the_forward_pass_only() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 2))
    x, y = torch.randn(8, 16), labels(8)
    kinds: list[torch.dtype] = []
    handle = model[0].register_forward_hook(lambda *seen: kinds.append(seen[2].dtype))
    exact = clipper_of(model).clipped_sum(x, y, 1.0)
    low = BookkeepingClipper(model, trained(model), cross_entropy, autocast=torch.bfloat16)
    found = low.clipped_sum(x, y, 1.0)
    handle.remove()
    assert kinds[-1] == torch.bfloat16
    assert found.dtype == np.float64
    assert not np.array_equal(found, exact)
    assert np.linalg.norm(found - exact) <= 0.02 * np.linalg.norm(exact)
    one = low.clipped_sum(x[:1], y[:1], 1e-3)
    assert 1e-3 * (1 - 1e-4) <= np.linalg.norm(one) <= 1e-3 * (1 + 1e-5)


def test_coarse_matrix_products_are_switched_off_and_back() -> None:
    before = torch.get_float32_matmul_precision()
    seen: list[str] = []
    try:
        torch.set_float32_matmul_precision("medium")
        with layer_chunk.full_precision():
            seen.append(torch.backends.mkldnn.matmul.fp32_precision)
            seen.append(torch.backends.cuda.matmul.fp32_precision)
        assert seen == ["ieee", "ieee"]
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_many_equal_records_stay_within_the_slack() -> None:
    """The hardest case for float32 sums: 500 equal records, and one leaves."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten()),
        *(nn.Linear(32 * 16, 64), nn.ReLU(), nn.Linear(64, 2)),
    )
    x, y = torch.randn(1, 1, 8, 8).repeat(500, 1, 1, 1), torch.zeros(500, dtype=torch.int64)
    clipper = clipper_of(model)
    whole, without = clipper.clipped_sum(x, y, 1.0), clipper.clipped_sum(x[1:], y[1:], 1.0)
    assert np.linalg.norm(whole) > 499
    assert np.linalg.norm(whole - without) <= 1 + 1e-5


def test_a_float64_model_is_exact() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(16, 2)).double()
    agree(model, torch.randn(5, 2, 6, dtype=torch.float64), labels(5), tolerance=2e-6)


def test_a_failed_self_check_is_a_bug_and_says_so() -> None:
    assert issubclass(ClipperMismatch, CollegiumError)
    assert ClipperMismatch.exit_code == 70

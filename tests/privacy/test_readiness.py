"""Which models may be trained record by record, and what is said about the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from collegium.core.errors import InvalidInput, Problem
from collegium.privacy.clipping import make_clipper
from collegium.privacy.readiness import check, may_train


class Scale(nn.Module):
    """A parameter that a module with layers holds itself, as class tokens are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) * self.scale


class Own(nn.Linear):
    """A layer with a forward pass of its own."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flip(0))


class Positions(nn.Module):
    """Tokens and their positions, as language models add them."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 4)
        self.position_embeddings = nn.Embedding(5, 4)
        self.token_type_embeddings = nn.Embedding(2, 4)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1])[None]
        return (self.words(tokens) + self.position_embeddings(places)).mean(1)


def only(problems: list[Problem]) -> Problem:
    (problem,) = problems
    return problem


def test_good_models_have_no_problem() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Flatten(),
        nn.LayerNorm(16), nn.Linear(16, 2), nn.Dropout(0.0),
    )  # fmt: skip
    assert check(model) == []
    assert check(model, [name for name, _ in model.named_parameters()]) == []
    assert check(model, example=torch.randn(3, 1, 4, 4)) == []


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(3), nn.BatchNorm2d(3), nn.SyncBatchNorm(3)])
@pytest.mark.parametrize("training", [True, False])
def test_batch_statistics_frozen_or_not_awake_or_not(layer: nn.Module, training: bool) -> None:
    for parameter in layer.parameters():
        parameter.requires_grad_(False)
    problem = only(check(nn.Sequential(layer).train(training)))
    assert "layer '0'" in problem.where
    assert "mixes the records" in problem.what
    assert "GroupNorm" in problem.cure and "cure(model)" in problem.cure


def test_batch_statistics_that_nothing_keeps_cannot_be_frozen() -> None:
    problem = only(check(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))))
    assert "cure(model)" not in problem.cure and "GroupNorm" in problem.cure


def test_instance_norm_only_with_running_statistics() -> None:
    assert check(nn.Sequential(nn.InstanceNorm2d(3), nn.Conv2d(3, 3, 1))) == []
    problem = only(check(nn.Sequential(nn.InstanceNorm2d(3, track_running_stats=True))))
    assert "keeps averages" in problem.what


def test_all_problems_at_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2), nn.Dropout(0.5))
    model[2].weight = model[0].weight
    found = check(model, ["nobody", "0.weight"])
    assert len(found) == 4
    text = "\n".join(map(str, found))
    for word in ("'nobody'", "layer '1'", "same tensor as '0.weight'", "layer '3'", "p=0.5"):
        assert word in text
    assert all(p.where and p.what and p.why and p.cure for p in found)


def test_shared_memory_counts_as_shared_and_neighbours_do_not() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    memory = torch.zeros(8)
    model[0].weight.data, model[1].weight.data = memory[:4].view(2, 2), memory[4:].view(2, 2)
    assert check(model) == []
    model[1].weight.data = memory[3:7].view(2, 2)  # overlaps by one number
    assert "same tensor" in only(check(model)).what
    model[0].weight.requires_grad_(False)  # training one of them still moves the other
    assert "same tensor" in only(check(model)).what
    model[1].weight.requires_grad_(False)
    assert check(model) == []


def test_one_module_under_two_names_is_shared() -> None:
    layer = nn.Linear(2, 2)
    assert len(check(nn.Sequential(layer, nn.ReLU(), layer))) == 2  # weight and bias


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: nn.Sequential(Scale()), "holds scale itself"),
        (lambda: nn.Sequential(Own(3, 3)), "no clipping engine knows"),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 3, 1)), "no clipping engine knows"),
        (lambda: nn.Sequential(nn.LSTM(3, 3)), "no clipping engine knows"),
        (lambda: nn.Sequential(nn.PReLU()), "no clipping engine knows"),
        (lambda: nn.Sequential(nn.Conv3d(3, 3, 3, padding=1, padding_mode="circular")), "knows"),
        (lambda: nn.Sequential(nn.MultiheadAttention(4, 2)), "hands its weights to a function"),
        (lambda: nn.Sequential(nn.Embedding(5, 3, scale_grad_by_freq=True)), "how often a token"),
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(3, 3))), "holds"),
    ],
)  # fmt: skip
def test_what_no_engine_follows_may_stay_frozen(build: Callable[[], nn.Module], word: str) -> None:
    model = build()
    found = check(model)
    assert any(word in problem.what for problem in found), found
    assert all("layer '0" in problem.where for problem in found)
    model.requires_grad_(False)
    assert check(model) == []


def test_only_what_trains_must_be_followed() -> None:
    model = Scale()
    assert check(model, ["layer.weight", "layer.bias"]) == []
    assert "scale" in only(check(model, ["scale"])).what
    assert may_train(model) == ["layer.weight", "layer.bias"]


def test_a_replaced_forward_is_not_the_layer_that_engines_know() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    original = model[0].forward
    model[0].forward = lambda x: original(x.flip(0))  # as offloading libraries do
    assert "forward replaced" in only(check(model)).what


def test_position_and_segment_embeddings() -> None:
    model = Positions()
    names = [problem.where for problem in check(model)]
    assert names == ["layer 'position_embeddings'", "layer 'token_type_embeddings'"]
    assert may_train(model) == ["words.weight"]
    model.position = nn.Embedding(3, 2)  # a column of a table: somebody's post
    assert may_train(model) == ["words.weight", "position.weight"]
    del model.position
    assert check(model, may_train(model)) == []


def test_a_rescaled_table_changes_even_when_frozen() -> None:
    model = nn.Sequential(nn.Embedding(5, 3, max_norm=1.0)).requires_grad_(False)
    before = model[0].weight.clone()
    model(torch.tensor([1]))
    assert not torch.equal(before, model[0].weight)  # torch does that in every forward pass
    assert "max_norm" in only(check(model)).what


def test_random_layers_awake_or_not() -> None:
    class Path(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop_prob = 0.25

    model = nn.Sequential(
        nn.Linear(2, 2), nn.Dropout(0.1), nn.AlphaDropout(0.2), Path(), nn.Dropout2d(0.0),
        nn.LSTM(2, 2, num_layers=2, dropout=0.3).requires_grad_(False),
    ).eval()  # fmt: skip
    assert [problem.where for problem in check(model)] == [f"layer '{n}'" for n in (1, 2, 3, 5)]


def test_a_known_seed_lets_one_record_move_all_the_others() -> None:
    """Why dropout is refused: the sum over the others changes by more than the clip norm."""
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 1))
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(3))

    def clipped_sum(records: Tensor) -> Tensor:
        torch.manual_seed(0)
        rows = model[0](records)  # the gradient of a sum of outputs
        return (rows / rows.norm(dim=1, keepdim=True)).sum(0)

    assert float((clipped_sum(x) - clipped_sum(x[1:])).norm()) > 3.0  # C = 1


def test_lazy_and_empty_weights() -> None:
    assert "do not exist yet" in only(check(nn.Sequential(nn.LazyLinear(2)))).what
    assert "do not exist yet" in only(check(nn.Sequential(nn.LazyBatchNorm1d()))).what
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2))
    assert "do not exist yet" in only(check(model)).what


def test_wrappers_and_compiled_modules() -> None:
    layer = nn.Linear(2, 2)
    assert "replicas" in only(check(nn.DataParallel(layer))).what

    class OptimizedModule(nn.Module):  # the name of what torch.compile returns
        def __init__(self) -> None:
            super().__init__()
            self._orig_mod = layer

    assert "compiled" in only(check(OptimizedModule())).what


def test_gradient_checkpointing() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.gradient_checkpointing = True
    assert "checkpointing" in only(check(model)).what


def test_nothing_trains() -> None:
    model = nn.Sequential(nn.Linear(2, 2)).requires_grad_(False)
    assert "none of its parameters trains" in only(check(model, [])).what
    assert check(model, ["0.weight"]) == []  # it will be woken


def test_in_place_modules_matter_to_opacus_alone() -> None:
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True))
    assert check(plain) == []
    model = nn.Sequential(nn.Conv3d(1, 2, 3), nn.ReLU(inplace=True))
    assert "in place" in only(check(model)).what
    assert "in place" in only(check(model, ["0.bias"])).what


LAYERS: list[tuple[nn.Module, tuple[int, ...]]] = [
    (nn.Linear(4, 3), (4,)),
    (nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"), (2, 5)),
    (nn.Conv2d(2, 4, 3, groups=2, padding=1, padding_mode="reflect"), (2, 5, 5)),
    (nn.Conv3d(2, 3, 2), (2, 3, 3, 3)),
    (nn.GroupNorm(2, 4), (4, 5)),
    (nn.LayerNorm(4), (3, 4)),
    (nn.RMSNorm(4), (3, 4)),
    (nn.InstanceNorm1d(3, affine=True), (3, 6)),
    (nn.InstanceNorm2d(3, affine=True), (3, 4, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda v: type(v).__name__)
def test_what_passes_is_right_in_the_engine(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Identity(), layer, nn.Flatten(), nn.Tanh())
    x, y = torch.randn(3, *shape), torch.zeros(3, dtype=torch.int64)
    assert check(model, example=x) == []

    def loss(out: Tensor, target: Tensor) -> Tensor:
        return (out * torch.linspace(0.5, 1.5, out.shape[1])).sum(1) + 0.0 * target

    parameters = list(model.parameters())
    found = make_clipper(model, parameters, loss).per_unit_norms(x, y)
    for row in range(len(x)):
        grads = torch.autograd.grad(loss(model(x[row : row + 1]), y[:1]).sum(), parameters)
        expected = torch.cat([grad.flatten() for grad in grads]).norm()
        assert float(found[row]) == pytest.approx(float(expected), rel=1e-4)


def test_the_engine_refuses_with_the_same_words() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    with pytest.raises(InvalidInput, match="mixes the records") as caught:
        make_clipper(model, list(model[1].parameters()), lambda out, y: out.sum(1))
    assert list(caught.value.problems) == check(model)

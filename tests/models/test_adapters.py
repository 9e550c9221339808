"""Selecting what trains, and the flat vector of it."""

import numpy as np
import pytest
import torch

from collegium.core.errors import InvalidInput
from collegium.models.adapters import read_vector, select_trainable, write_vector
from collegium.models.vision import FEATURES, GlyphCNN


def test_the_head_alone_requires_gradients() -> None:
    model = GlyphCNN()
    chosen = select_trainable(model, "head")
    assert list(chosen) == ["head.weight", "head.bias"]
    assert [n for n, p in model.named_parameters() if p.requires_grad] == list(chosen)


def test_bias_trains_the_head_and_every_bias_in_module_order() -> None:
    model = GlyphCNN()
    chosen = list(select_trainable(model, "bias"))
    order = [name for name, _ in model.named_parameters()]
    assert chosen == sorted(chosen, key=order.index)
    assert {"head.weight", "head.bias", "body.0.0.bias"} <= set(chosen)
    assert "body.0.0.weight" not in chosen


def test_all_thaws_what_head_had_frozen() -> None:
    model = GlyphCNN()
    select_trainable(model, "head")
    assert list(select_trainable(model, "all")) == [name for name, _ in model.named_parameters()]
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("trainable", ["lora:4", "heads", "last:0"])
def test_what_a_model_does_not_have_cannot_train(trainable: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        select_trainable(GlyphCNN(), trainable)
    assert caught.value.exit_code == 65 and caught.value.cure


def test_norm_trains_the_head_and_the_scales_of_norms() -> None:
    chosen = list(select_trainable(GlyphCNN(), "norm"))
    norms = [f"body.{block}.1.{key}" for block in range(3) for key in ("weight", "bias")]
    assert chosen == [*norms, "head.weight", "head.bias"]


def test_last_trains_the_head_and_the_blocks_before_it() -> None:
    # convolution, norm, convolution, norm, convolution, norm, linear: a norm is no block
    one, two = (list(select_trainable(GlyphCNN(), f"last:{count}")) for count in (1, 2))
    assert one == ["body.4.weight", "body.4.bias", "head.weight", "head.bias"]
    assert {name.rpartition(".")[0] for name in two} == {"body.2.0", "body.2.1", "body.4", "head"}
    every = [name for name, _ in GlyphCNN().named_parameters()]
    assert list(select_trainable(GlyphCNN(), "last:4")) == every


@pytest.mark.parametrize("count", [5, 99])
def test_more_blocks_than_there_are_is_refused_with_their_number(count: int) -> None:
    with pytest.raises(InvalidInput, match="has 4 blocks") as caught:
        select_trainable(GlyphCNN(), f"last:{count}")
    assert 'write "last:4" or fewer, or "all"' in caught.value.cure


def test_a_model_that_mixes_records_is_refused_with_the_cure() -> None:
    class Mixing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
            self.head = torch.nn.Linear(3, 2)

    with pytest.raises(InvalidInput, match="mixes the records"):
        select_trainable(Mixing(), "head")


def test_buffers_are_read_and_written_like_parameters() -> None:
    model = torch.nn.Module()
    model.part = torch.nn.Linear(2, 1)
    model.part.register_buffer("mean", torch.tensor([3.0, 4.0]))
    names = ["part.mean", "part.bias"]
    write_vector(model, names, np.array([5, 6, 7], dtype=np.float32))
    assert read_vector(model, names).tolist() == [5, 6, 7]
    assert model.part.get_buffer("mean").tolist() == [5, 6]


@pytest.mark.parametrize("name", ["head.nothing", "nowhere.weight", ""])
def test_a_name_that_the_model_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="no tensor"):
        read_vector(GlyphCNN(), [name])


def test_the_vector_is_row_major_and_in_order() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        model[0].bias.copy_(torch.tensor([5.0, 6.0]))
    assert read_vector(model, ["0.weight", "0.bias"]).tolist() == [1, 2, 3, 4, 5, 6]
    assert read_vector(model, ["0.bias", "0.weight"]).tolist() == [5, 6, 1, 2, 3, 4]


def test_what_is_written_is_read_back_bit_for_bit() -> None:
    model, names = GlyphCNN(), ["head.weight", "head.bias"]
    vector = np.random.default_rng(0).normal(size=(FEATURES + 1) * 10).astype(np.float32)
    body = model.get_parameter("body.0.0.weight").detach().clone()
    write_vector(model, names, vector)
    assert read_vector(model, names).tobytes() == vector.tobytes()
    assert torch.equal(model.get_parameter("body.0.0.weight"), body)


def test_a_read_vector_is_a_copy() -> None:
    model = GlyphCNN()
    before = read_vector(model, ["head.bias"])
    before[:] = 7
    assert not (read_vector(model, ["head.bias"]) == 7).any()


def test_a_vector_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(InvalidInput, match="10 coordinates"):
        write_vector(GlyphCNN(), ["head.bias"], np.zeros(11, dtype=np.float32))

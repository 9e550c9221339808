"""Attention made of layers computes what torch's and torchvision's own modules do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.swin_transformer import ShiftedWindowAttention, ShiftedWindowAttentionV2

from collegium.privacy.attention import ProjectedAttention, replaceable
from collegium.privacy.window_attention import WindowAttention, is_window_attention

HIDDEN = torch.tensor([[False, False, False, True], [False, True, False, True]])
MASKS: list[dict[str, Any]] = [
    {},
    {"attn_mask": torch.linspace(-1, 1, 20).view(5, 4)},
    {"attn_mask": torch.arange(20).view(5, 4) % 4 == 3},
    {"attn_mask": torch.linspace(-1, 1, 80).view(4, 5, 4)},  # records x heads
    {"key_padding_mask": HIDDEN},
    {"key_padding_mask": HIDDEN, "attn_mask": torch.arange(20).view(5, 4) % 4 == 0},
]


def attention(**options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(2)
    made = nn.MultiheadAttention(6, 2, **options)
    for name, value in made.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(value)
    return made.eval()


@pytest.mark.parametrize("mask", MASKS, ids=lambda m: "+".join(m) or "plain")
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("widths", [{}, {"kdim": 3, "vdim": 5}, {"bias": False}], ids=str)
def test_the_same_as_torch(mask: dict[str, Any], batch_first: bool, widths: dict[str, Any]) -> None:
    original = attention(batch_first=batch_first, **widths)
    made = ProjectedAttention.of(original)
    query = torch.randn(2, 5, 6)
    key, value = torch.randn(2, 4, widths.get("kdim", 6)), torch.randn(2, 4, widths.get("vdim", 6))
    inputs = (query, key, value)
    if not batch_first:
        inputs = tuple(item.transpose(0, 1) for item in inputs)
    for averaged in (True, False):
        expected, weights = original(*inputs, average_attn_weights=averaged, **mask)
        out, found = made(*inputs, average_attn_weights=averaged, **mask)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found, weights, rtol=1e-5, atol=1e-6)
    out, nothing = made(*inputs, need_weights=False, **mask)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    assert nothing is None and float(out.detach().std()) > 0.01


def test_one_sequence_without_a_batch() -> None:
    original = attention()
    made = ProjectedAttention.of(original)
    x, hidden = torch.randn(4, 6), torch.tensor([False, True, False, False])
    for found, expected in zip(
        made(x, x, x, key_padding_mask=hidden),
        original(x, x, x, key_padding_mask=hidden),
        strict=True,
    ):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("batch_first", [True, False])
def test_projections_see_records_first(batch_first: bool) -> None:
    made = ProjectedAttention.of(attention(batch_first=batch_first))
    seen: list[tuple[int, ...]] = []
    for layer in (made.q_proj, made.k_proj, made.v_proj, made.out_proj):
        layer.register_forward_hook(lambda m, inputs, out: seen.append(tuple(out.shape[:2])))
    x = torch.randn(2, 5, 6) if batch_first else torch.randn(5, 2, 6)
    made(x, x, x)
    assert seen == [(2, 5)] * 4


def test_what_trains_and_the_type_are_kept() -> None:
    original = attention().double()
    original.in_proj_weight.requires_grad_(False)
    original.out_proj.bias.requires_grad_(False)
    made = ProjectedAttention.of(original)
    trains = {name for name, value in made.named_parameters() if value.requires_grad}
    assert trains == {"q_proj.bias", "k_proj.bias", "v_proj.bias", "out_proj.weight"}
    assert made.q_proj.weight.dtype == torch.float64
    original.train()
    assert ProjectedAttention.of(original).training


@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True}], ids=str)
def test_extra_rows_are_not_replaced(options: dict[str, Any]) -> None:
    assert replaceable(attention()) and not replaceable(attention(**options))


@pytest.mark.parametrize("norm_first", [True, False])
def test_inside_torchs_own_encoder(norm_first: bool) -> None:
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(2, 4, 6)
    with torch.no_grad():
        expected = encoder(x, src_key_padding_mask=HIDDEN)
        for block in encoder.layers:
            assert isinstance(block, nn.TransformerEncoderLayer)
            block.self_attn = ProjectedAttention.of(block.self_attn)  # type: ignore[assignment]
        found = encoder(x, src_key_padding_mask=HIDDEN)
    # torch's fused path writes zeros where nothing is looked at; the layers compute there, too
    torch.testing.assert_close(found[~HIDDEN], expected[~HIDDEN], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shift", [[0, 0], [2, 2], [1, 2]])
@pytest.mark.parametrize("size", [(4, 4), (8, 8), (9, 6), (3, 8)])
def test_the_same_as_torchvision(shift: list[int], size: tuple[int, int]) -> None:
    torch.manual_seed(4)
    original = ShiftedWindowAttention(6, [4, 4], shift, 2).eval()
    nn.init.normal_(original.relative_position_bias_table)
    x = torch.randn(3, *size, 6)
    expected: Tensor = original(x)
    names = list(original.state_dict())
    made = WindowAttention(original)
    torch.testing.assert_close(made(x), expected, rtol=1e-5, atol=1e-6)
    assert sorted(made.state_dict()) == sorted(names)
    assert not made.relative_position_bias_table.requires_grad
    assert float(expected.detach().std()) > 0.01


def test_window_layers_see_a_row_per_record() -> None:
    made = WindowAttention(ShiftedWindowAttention(6, [4, 4], [2, 2], 2))
    seen: list[tuple[int, ...]] = []
    for layer in (made.qkv, made.proj):
        layer.register_forward_hook(lambda m, inputs, out: seen.append(tuple(out.shape[:2])))
    made(torch.randn(3, 8, 8, 6))
    assert seen == [(3, 64)] * 2


def test_only_version_one_is_known() -> None:
    assert is_window_attention(ShiftedWindowAttention(6, [4, 4], [0, 0], 2))
    assert not is_window_attention(ShiftedWindowAttentionV2(6, [4, 4], [0, 0], 2))

"""Attention made of Linear layers: the same function as nn.MultiheadAttention, layer by layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

PROJECTIONS = ("q_proj", "k_proj", "v_proj")


class ProjectedAttention(nn.Module):
    """nn.MultiheadAttention whose four projections are ``nn.Linear`` layers that are called.

    torch's own module hands its weights to one function, so that no hook sees what went in or
    out of them. Same arguments, same results, no dropout; the projections always see records on
    their first axis, also with ``batch_first=False``. (Vaswani et al. 2017, section 3.2)
    """

    in_proj_weight = in_proj_bias = None
    _qkv_same_embed_dim = False  # nn.TransformerEncoderLayer asks; its fused path skips layers

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        kdim: int | None = None,
        vdim: int | None = None,
        bias: bool = True,
        batch_first: bool = False,
    ) -> None:
        """Widths of query (and output), key and value; ``num_heads`` divides ``embed_dim``."""
        super().__init__()
        self.embed_dim, self.num_heads, self.batch_first = embed_dim, num_heads, batch_first
        self.head_dim = embed_dim // num_heads
        self.q_proj = nn.Linear(embed_dim, embed_dim, bias=bias)
        self.k_proj = nn.Linear(kdim or embed_dim, embed_dim, bias=bias)
        self.v_proj = nn.Linear(vdim or embed_dim, embed_dim, bias=bias)
        self.out_proj = nn.Linear(embed_dim, embed_dim, bias=bias)

    @classmethod
    def of(cls, other: nn.MultiheadAttention) -> ProjectedAttention:
        """Return ``other`` with its weights, mode, and what of it trains; dropout is left out."""
        held = dict(other.named_parameters())  # what is None is not among them
        made = cls(
            other.embed_dim,
            other.num_heads,
            kdim=other.kdim,
            vdim=other.vdim,
            bias="in_proj_bias" in held,
            batch_first=other.batch_first,
        )
        output = other.out_proj.weight
        made.to(device=output.device, dtype=output.dtype)
        for index, name in enumerate(PROJECTIONS):
            layer: nn.Linear = getattr(made, name)
            if "in_proj_weight" in held:
                _copy(layer.weight, held["in_proj_weight"], index)
            else:
                _copy(layer.weight, held[f"{name}_weight"])
            if "in_proj_bias" in held:
                _copy(layer.bias, held["in_proj_bias"], index)
        for name in ("weight", "bias"):
            if f"out_proj.{name}" in held:
                _copy(getattr(made.out_proj, name), held[f"out_proj.{name}"])
        return made.train(other.training)

    def forward(  # noqa: PLR0917 - the arguments of nn.MultiheadAttention
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the output (as ``query``) and the weights or None; see nn.MultiheadAttention.

        ``is_causal`` is a hint about ``attn_mask`` and changes nothing.
        """
        del is_causal
        single = query.dim() == 2
        if single:
            query, key, value = (item.unsqueeze(0) for item in (query, key, value))
            if key_padding_mask is not None:
                key_padding_mask = key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (item.transpose(0, 1) for item in (query, key, value))
        q = self._heads(self.q_proj(query))  # (n, heads, length, head_dim)
        k, v = self._heads(self.k_proj(key)), self._heads(self.v_proj(value))
        mask = self._mask(attn_mask, key_padding_mask, q)
        weights = None
        if need_weights:
            scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
            weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
            mixed = weights @ v
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = self.out_proj(mixed.transpose(1, 2).flatten(2))  # (n, length, embed_dim)
        if single:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _heads(self, value: Tensor) -> Tensor:
        return value.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)

    def _mask(self, attn: Tensor | None, padding: Tensor | None, q: Tensor) -> Tensor | None:
        """Return one additive mask (n or 1, heads or 1, length or 1, keys)."""
        mask = None
        if attn is not None:
            mask = _additive(attn, q.dtype)
            if mask.dim() == 3:
                mask = mask.unflatten(0, (q.shape[0], self.num_heads))
            else:
                mask = mask[None, None]
        if padding is not None:
            keys = _additive(padding, q.dtype)[:, None, None, :]
            mask = keys if mask is None else mask + keys
        return mask


def replaceable(module: nn.MultiheadAttention) -> bool:
    """Return whether ``ProjectedAttention`` computes the same: no extra key, value or zero row."""
    extra = module.bias_k is not None or module.bias_v is not None or module.add_zero_attn
    return type(module).forward is nn.MultiheadAttention.forward and not extra


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a mask whose True means 'do not look' into one that is added to the scores."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, float("-inf"))


def _copy(parameter: Tensor, source: Tensor, third: int | None = None) -> None:
    """Set ``parameter`` to ``source``, or to a third of its rows; it trains if the source does."""
    with torch.no_grad():
        parameter.copy_(source if third is None else source.chunk(3)[third])
    parameter.requires_grad_(source.requires_grad)

"""Equivalents of modules that cannot be followed record by record, and where their weights went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from . import obstacles as ob
from .attention import PROJECTIONS, ProjectedAttention
from .channel_norm import ChannelNorm, is_channel_norm
from .frozen import FrozenNorm, Statistics, has_statistics
from .window_attention import WindowAttention, is_window_attention


@dataclass(frozen=True, slots=True, kw_only=True)
class Rename:
    """One former ``state_dict`` key, and the keys that, joined on their first axis, are it now."""

    before: str
    after: tuple[str, ...]

    def under(self, prefix: str) -> Rename:
        """Return the same with ``prefix`` before every key."""
        return Rename(before=prefix + self.before, after=tuple(prefix + key for key in self.after))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """A module that takes the place of another, in words, and what of it got new names."""

    module: nn.Module
    kind: str
    what: str
    why: str
    renames: Sequence[Rename] = ()


def replacement(module: nn.Module) -> Replacement | None:
    """Return the equivalent of ``module`` with its weights; None where it may stay as it is.

    In eval mode both compute the same.
    """
    uncalled = "its layers' weights were used without calling the layers"
    if isinstance(module, Statistics) and ob.keeps_statistics(module) and has_statistics(module):
        return Replacement(
            module=FrozenNorm.of(module),
            kind="norms frozen",
            what="frozen to its pre-trained statistics, scale and shift",
            why="it mixes records, or keeps averages over them",
        )
    if isinstance(module, nn.MultiheadAttention) and ob.is_replaceable(module):
        return Replacement(
            module=ProjectedAttention.of(module),
            kind="attentions rebuilt",
            what="made of Linear layers",
            why=uncalled,
            renames=_projections(module),
        )
    if is_window_attention(module):
        return Replacement(
            module=WindowAttention(module),
            kind="attentions rebuilt",
            what="made to call its Linear layers, its table of positions frozen",
            why=uncalled,
        )
    if isinstance(module, nn.LayerNorm) and is_channel_norm(module):
        held = [key for key, value in module._parameters.items() if value is not None]
        return Replacement(
            module=ChannelNorm(module),
            kind="channel norms rebuilt",
            what="given a LayerNorm of its own",
            why="it permuted inside, where hooks do not see",
            renames=[Rename(before=key, after=(f"norm.{key}",)) for key in held],
        )
    return None


def _projections(module: nn.MultiheadAttention) -> list[Rename]:
    """Return where ``ProjectedAttention`` keeps the weights of ``module``."""
    held = {key for key, value in module._parameters.items() if value is not None}
    renames = [
        Rename(before=f"in_proj_{kind}", after=tuple(f"{name}.{kind}" for name in PROJECTIONS))
        for kind in ("weight", "bias")
    ]
    renames += [Rename(before=f"{name}_weight", after=(f"{name}.weight",)) for name in PROJECTIONS]
    return [rename for rename in renames if rename.before in held]

"""Varied copies of the sampled records: augmentation multiplicity, which costs no privacy."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import InvalidInput
from .noise import Floats, NoiseStream
from .units import Rows

Kind = Literal["shift", "flip", "flip-shift"]
REACH = 8
"""An image moves by at most this fraction of its side (1/8), and by one pixel at least."""
_DRAWS = 3  # uniforms per copy: down, right, mirrored
_LABEL, _KEY_WORDS = b"collegium/augment/1|", 8  # 8 x 53 bits of the step's stream
_BLOCK = 4096  # records whose variants are drawn at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Augment:
    """``copies`` random variants of each sampled record (De et al. 2022, arXiv 2204.13650, 3.2).

    All copies of a unit's records count as records of that unit, so that their MEAN gradient is
    clipped: one unit still moves the sum by at most C, whatever the number of copies. What is
    drawn for a record depends on the step's random stream and on its place in the site's list:
    on no record's value, and not on which others are there. So the mechanism is a mixture of
    subsampled Gaussians with the same C.
    """

    kind: Kind
    copies: int = 1

    def draw(self, stream: NoiseStream, rows: Rows) -> Floats:
        """Return (rows, copies, 3) uniforms for the records at these places of the list.

        ``stream`` is a branch of the step's own; every record of the list up to the last of
        ``rows`` has its share of it, whether it is sampled or not.
        """
        width = self.copies * _DRAWS
        drawn = np.empty((len(rows), width))
        for start in range(0, int(rows.max(initial=-1)) + 1, _BLOCK):
            block = stream.uniform(_BLOCK * width).reshape(_BLOCK, width)
            here = (rows >= start) & (rows < start + _BLOCK)
            drawn[here] = block[rows[here] - start]
        return drawn.reshape(len(rows), self.copies, _DRAWS)

    def vary(self, x: Tensor, y: Tensor, draws: Floats) -> tuple[Tensor, Tensor]:
        """Return the copies of x (n, height, width[, channels]) and y, copy after copy.

        (n copies, ...) each; a mask y (n, height, width) moves with its image. Pixels that move
        in repeat the edge. ``draws`` (n, copies, 3) are those of ``draw``. Raises
        ``InvalidInput`` for records that are no images.
        """
        if x.dim() not in (3, 4):
            raise InvalidInput(
                f"records of {x.dim() - 1} axes cannot be shifted or mirrored",
                why="[training] augment varies images: height, width and perhaps channels",
                cure='write augment = "none"',
            )
        height, width = int(x.shape[1]), int(x.shape[2])
        moves = torch.from_numpy(draws.reshape(-1, _DRAWS)).to(x.device)
        down = self._places(moves[:, 0], height)  # (n copies, height)
        right = self._places(moves[:, 1], width)  # (n copies, width)
        if self.kind != "shift":
            mirrored = (moves[:, 2] > 0.5)[:, None]
            right = torch.where(mirrored, width - 1 - right, right)
        record = torch.arange(len(x), device=x.device).repeat_interleave(self.copies)
        pick = (record[:, None, None], down[:, :, None], right[:, None, :])
        masks = y.dim() >= 3 and tuple(y.shape[1:3]) == (height, width)
        return x[pick], y[pick] if masks else y[record]

    def _places(self, uniform: Tensor, side: int) -> Tensor:
        """Return (m, side): which row or column each one comes from, edges repeated."""
        places = torch.arange(side, device=uniform.device)[None, :]
        if self.kind == "flip":
            return places.expand(len(uniform), side)
        reach = max(1, side // REACH)
        # Uniforms lie in (0, 1], so that each of the 2 reach + 1 moves is equally likely.
        moved = torch.ceil(uniform * (2 * reach + 1)).long() - 1 - reach
        return (places - moved[:, None]).clamp(0, side - 1)


def branch(stream: NoiseStream) -> NoiseStream:
    """Return a stream of its own for the variants, keyed by the step's stream.

    It is taken before anything is sampled, so that no count of records shifts it.
    """
    key = hashlib.sha256(_LABEL + stream.uniform(_KEY_WORDS).astype("<f8").tobytes()).digest()
    return NoiseStream(key, reproducible=stream.reproducible)


def owners_of_copies(owners: NDArray[Any] | None, records: int, copies: int) -> NDArray[Any]:
    """Return (records copies,): the unit of each copy, where ``owners`` (records,) are those of
    the records (None: each record is a unit)."""
    own = np.arange(records) if owners is None else owners
    return np.repeat(own, copies)

"""Normalisation with fixed statistics: what BatchNorm becomes before training on records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

Statistics = nn.modules.batchnorm._NormBase
"""BatchNorm and InstanceNorm of any dimension: what may carry running statistics."""


class FrozenNorm(nn.Module):
    """A BatchNorm (or InstanceNorm) that always acts as in eval mode, on (n, channels, ...).

    Statistics, scale and shift are buffers under their former names: nothing trains, nothing
    moves with the records, ``train()`` changes nothing, and the ``state_dict`` has the same keys.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, buffers: Mapping[str, Tensor | None], *, eps: float) -> None:
        """``buffers``: weight, bias (each (channels,) or None), running_mean, running_var, and
        num_batches_tracked or None."""
        super().__init__()
        self.eps = eps
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            value = buffers.get(name)
            self.register_buffer(name, None if value is None else value.detach().clone())

    @classmethod
    def of(cls, norm: Statistics) -> FrozenNorm:
        """Return ``norm`` with its running statistics frozen; it must have some."""
        held: dict[str, Any] = {**norm._parameters, **norm._buffers}
        return cls(held, eps=norm.eps)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised (n, channels, ...), exactly as the eval-mode original."""
        return functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )

    def extra_repr(self) -> str:
        """Return the number of channels and eps."""
        return f"{len(self.running_mean)}, eps={self.eps}"


def has_statistics(norm: Statistics) -> bool:
    """Return whether there are running statistics to keep (not so with track_running_stats off)."""
    return isinstance(norm.running_mean, Tensor) and isinstance(norm.running_var, Tensor)

"""Layer normalisation over the channels of images, with the LayerNorm as a layer of its own."""

from __future__ import annotations

from torch import Tensor, nn

KINDS = ("torchvision.models.convnext.LayerNorm2d",)


class ChannelNorm(nn.Module):
    """torchvision's LayerNorm2d: ``norm`` sees (n, height, width, channels), channels last.

    The original permutes inside its own ``forward``, so that a hook on it sees the channels on
    the second axis, where LayerNorm's gradient rule does not look for them.
    """

    def __init__(self, other: nn.LayerNorm) -> None:
        """Take over the scale, shift and eps of ``other``."""
        super().__init__()
        affine = other.elementwise_affine
        shape = list(other.normalized_shape)
        self.norm = nn.LayerNorm(shape, other.eps, elementwise_affine=affine)
        self.norm.weight, self.norm.bias = other.weight, other.bias
        self.train(other.training)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised (n, channels, height, width)."""
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def is_channel_norm(module: nn.Module) -> bool:
    """Return whether ``module`` is such an original, known by name: no import needed."""
    kind = type(module)
    return f"{kind.__module__}.{kind.__qualname__}" in KINDS

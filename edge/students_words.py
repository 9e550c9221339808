"""What a student is, in words for the bill of materials: its layers, not its name in a plan."""

from __future__ import annotations

from torch import nn

from .students import OPEN, SAME
from .students_conv import ConvNet
from .students_layers import layer_count


def architecture(kind: str, student: nn.Module, base: str) -> str:
    """Return what an untrained student of this (resolved) kind is; ``base`` names its teacher."""
    family = kind.partition(":")[0]
    if kind == SAME:
        return f"{base}: the global model itself"
    if family in OPEN:
        return kind
    if isinstance(student, ConvNet):
        widths = [each.out_channels for each in student.modules() if isinstance(each, nn.Conv2d)]
        return (
            f"convolutional net: {len(widths)} convolutions of 3 x 3 with {min(widths)} to "
            f"{max(widths)} channels, then a linear layer"
        )
    body = getattr(student, "body", None)
    if isinstance(body, nn.Sequential) and isinstance(body[0], nn.Linear):
        units = [each.out_features for each in body if isinstance(each, nn.Linear)]
        return f"multilayer perceptron: {len(units)} hidden layers of {units[0]} units"
    return f"{base} with {layer_count(student)} of its attention layers"

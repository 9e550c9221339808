"""The bundled open model of small grey images: a CNN without batch statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from .heads import UnitNorm, zero_head
from .outputs import outputs
from .preprocess import PixelScale

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef
    from .cards import ModelCard
    from .states import Source

FEATURES = 64  # what the head reads
FEATURE_NORM = 2.0  # L2 norm of every feature vector: it bounds the gradient of the head
LARGEST_PIXEL = 16.0


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
        nn.GroupNorm(8, outputs),
        nn.ReLU(),
    )


class GlyphCNN(nn.Module):
    """8 x 8 grey images, pixel values 0..16, to class logits.

    GroupNorm only (a batch statistic would mix records and break per-record clipping) and no
    in-place operation, so that a clipping engine sees every layer's true input.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.preprocess = PixelScale(LARGEST_PIXEL)
        self.body = nn.Sequential(
            _block(1, 32),  # (batch, 32, 8, 8)
            _block(32, 48),  # (batch, 48, 8, 8)
            _block(48, 64, stride=2),  # (batch, 64, 4, 4)
            nn.Flatten(),
            nn.Linear(64 * 16, FEATURES),  # its bias centres the features
            UnitNorm(FEATURE_NORM),
        )
        self.head = nn.Linear(FEATURES, classes)
        self.output: nn.Module = nn.Identity()  # calibration, where the plan asks for it

    def features(self, x: Tensor) -> Tensor:
        """Map (batch, 8, 8) raw pixels to (batch, FEATURES) of L2 norm ``FEATURE_NORM``."""
        return self.body(self.preprocess(x))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 8, 8) raw pixels to (batch, classes) logits."""
        return self.output(self.head(self.features(x)))


def build(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module:
    """Return the bundled net with a zero head."""
    model = _loaded(card, source)
    model.head = zero_head(FEATURES, outputs(ref))
    return model


def open_model(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module | None:
    """Return the untouched net when the plan has as many classes as it knows digits."""
    return _loaded(card, source) if len(ref.classes) == len(card.classes) else None


def _loaded(card: ModelCard, source: Source | None) -> GlyphCNN:
    model = GlyphCNN(len(card.classes))
    if source is not None:
        model.load_state_dict(source())
    return model

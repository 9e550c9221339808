"""torchvision's classifiers with their pre-trained weights and a head of the right size."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor, nn

from .cards_open import OpenWeights, published, weights_of
from .heads import Headed, scaled, zero_head
from .images import ImagePreprocess, resized
from .outputs import outputs
from .states import Source, State, load_strictly

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef
    from .cards import ModelCard

IMAGENET_CLASSES = 1000
_DENSE = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)")


class OwnHead(nn.Module):
    """An untouched net behind the layer that reads raw pixels."""

    def __init__(self, preprocess: nn.Module, net: nn.Module) -> None:
        super().__init__()
        self.preprocess, self.net = preprocess, net

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, height, width, channels) raw pixels to (batch, classes)."""
        return self.net(self.preprocess(x))


def build(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module:
    """Return the net with a zero head; ``source`` None: with random weights."""
    net = _net(card, ref, source() if source else None)
    body, width = headless(net)
    return Headed(
        _preprocess(card, ref),
        scaled(body, card.option(ref, "feature_norm")),
        zero_head(width, outputs(ref)),
    )


def open_model(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module | None:
    """Return the untouched net when its own head has the plan's number of classes."""
    if source is None:
        return None
    state = source()
    if len(ref.classes) != _own_classes(ref, state):
        return None
    return OwnHead(_preprocess(card, ref), _net(card, ref, state))


def headless(net: nn.Module) -> tuple[nn.Module, int]:
    """Take the last linear layer off a classifier; return it and what that layer read.

    SqueezeNet ends in a convolution and a ReLU that would keep a zero head at zero: its features
    are the averages of what that convolution read, which gives the same linear head.
    """
    if type(net).__name__ == "SqueezeNet":
        last = cast("Any", net).classifier
        width = int(last[1].in_channels)
        cast("Any", net).classifier = nn.Sequential(last[0], last[3], nn.Flatten())
        return net, width
    name, layer = _last_linear(net)
    net.set_submodule(name, nn.Identity())
    return net, layer.in_features


def _last_linear(net: nn.Module) -> tuple[str, nn.Linear]:
    found = [(key, each) for key, each in net.named_modules() if isinstance(each, nn.Linear)]
    return found[-1]


def _net(card: ModelCard, ref: ModelRef, state: State | None) -> nn.Module:
    from torchvision.models import get_model

    short = ref.name.partition(":")[2]
    options: dict[str, Any] = {}
    if short in ("googlenet", "inception_v3"):
        # as torchvision itself builds them for its weights, without the heads of the training
        options = {"aux_logits": False, "transform_input": True, "init_weights": state is None}
    if short.startswith("vit_"):
        options["image_size"] = _weights(ref).side or card.min_side
    if state is None:
        return get_model(short, weights=None, **options)
    net = get_model(short, weights=None, num_classes=_own_classes(ref, state), **options)
    load_strictly(net, _cleaned(state), ref.name)
    return net


def _own_classes(ref: ModelRef, state: State) -> int:
    """Return the rows of the last layer of these weights."""
    key = "classifier.1.weight" if ":squeezenet" in ref.name else list(state)[-1]
    rows = state.get(key, state.get(key.rpartition(".")[0] + ".weight"))
    return IMAGENET_CLASSES if rows is None else len(rows)


def _cleaned(state: State) -> State:
    """Leave out the heads of the training; give DenseNet's old names their new form."""
    return {
        "".join(old.groups()) if (old := _DENSE.fullmatch(name)) else name: value
        for name, value in state.items()
        if not name.startswith(("aux", "AuxLogits"))
    }


def _weights(ref: ModelRef) -> OpenWeights:
    """Return which published weights these are; somebody else's are taken to be alike."""
    return published(ref.name, ref.weights) or weights_of(ref.name)[0]


def _preprocess(card: ModelCard, ref: ModelRef) -> ImagePreprocess:
    weights = _weights(ref)
    fixed = (weights.side or card.min_side) if card.fixed_side else 0
    return ImagePreprocess(resized(card, ref, fixed=fixed), weights.mean, weights.sd)

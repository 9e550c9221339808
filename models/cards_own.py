"""Cards of the models that are written out here: tables, hashed text, U-Net, CIFAR ResNets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType

from .cards import FEATURE_NORM, HEAD_ONLY, PARTS, PREDICTS, RANDOM, ModelCard, Option
from .fetch import asset_card

GLYPH_CNN = "collegium:glyph-cnn"
LINEAR = "tabular:linear"
MLP = "tabular:mlp"
FT_TRANSFORMER = "tabular:ft-transformer"
HASHED = "text:hashed"
UNET = "segmentation:unet"
CIFAR_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
CIFAR_WEIGHTS: Mapping[str, tuple[int, str]] = MappingProxyType(
    {
        "cifar:resnet20": (
            269_722,
            "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        ),
        "cifar:resnet32": (
            464_154,
            "d509ac1820d7f25398913559d7e81a13229b1e7adc5648e3bfa5e22dc137f850",
        ),
        "cifar:resnet44": (
            658_586,
            "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4",
        ),
        "cifar:resnet56": (
            853_018,
            "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",
        ),
    }
)
"""Parameters and SHA-256 of the file, by name."""
CIFAR_SOURCE = "https://github.com/akamaster/pytorch_resnet_cifar10"
STARTS_FRESH = "nothing: it starts from random weights, the same at every site"


def names() -> tuple[str, ...]:
    """Return the names of all models with a card in this file."""
    return (GLYPH_CNN, LINEAR, MLP, FT_TRANSFORMER, HASHED, UNET, *CIFAR_WEIGHTS)


def card(name: str) -> ModelCard | None:
    """Return the card of ``name``, None when it is not here."""
    if name in CIFAR_WEIGHTS:
        return _cifar(name)
    maker = {
        GLYPH_CNN: _glyph,
        LINEAR: _linear,
        MLP: _mlp,
        FT_TRANSFORMER: _ft_transformer,
        HASHED: _hashed,
        UNET: _unet,
    }.get(name)
    return maker() if maker else None


def _glyph() -> ModelCard:
    values = asset_card("glyph-cnn.json")
    told = {field.name: values[field.name] for field in fields(ModelCard) if field.name in values}
    for key in ("input_shape", "classes"):
        told[key] = tuple(told[key])
    return ModelCard(**told, input_kind="image", min_side=8, fixed_side=True)


def _linear() -> ModelCard:
    return _table(
        LINEAR,
        "a linear model over features scaled to [-1, 1] by the plan's public bounds",
        trained_on="nothing: it starts at zero",
        parts=HEAD_ONLY,
    )


def _mlp() -> ModelCard:
    return _table(
        MLP,
        "a multilayer perceptron with tanh, over features scaled by the plan's public bounds",
        options=(
            Option(name="hidden", default=64, low=1, high=4096, about="units of each layer"),
            Option(name="layers", default=2, low=1, high=16, about="hidden layers"),
        ),
        parts=("head", "bias", "lora", "last", "all"),
    )


def _ft_transformer() -> ModelCard:
    return _table(
        FT_TRANSFORMER,
        "a transformer over one token per feature (Gorishniy et al., NeurIPS 2021)",
        options=(
            Option(
                name="width", default=32, low=4, high=1024,
                about="numbers per token, a multiple of heads",
            ),
            Option(name="layers", default=2, low=1, high=24, about="transformer blocks"),
            Option(name="heads", default=4, low=1, high=64, about="attention heads"),
        ),
    )  # fmt: skip


def _table(
    name: str,
    summary: str,
    *,
    trained_on: str = STARTS_FRESH,
    options: tuple[Option, ...] = (),
    parts: tuple[str, ...] = PARTS,
) -> ModelCard:
    return ModelCard(
        name=name,
        license="Apache-2.0",
        task="classification",
        input_dtype="float32",
        trained_on=trained_on,
        summary=summary,
        tasks=PREDICTS,
        parts=parts,
        options=options,
    )


def _hashed() -> ModelCard:
    return ModelCard(
        name=HASHED,
        license="Apache-2.0",
        task="classification",
        input_dtype="int32",
        trained_on="nothing: it starts at zero",
        summary="a linear model over the roots of counts of hashed words, scaled to one length",
        input_kind="text",
        tasks=PREDICTS,
        parts=HEAD_ONLY,
        options=(
            Option(
                name="buckets", default=8192, low=16, high=2**20,
                about="buckets that words are hashed into",
            ),
            Option(name="bigrams", default=0, low=0, high=1, about="1: pairs of words count, too"),
            Option(
                name="tokens", default=256, low=1, high=8192,
                about="words and pairs that are read of each text",
            ),
            replace(FEATURE_NORM, default=1, low=0.01),
        ),
    )  # fmt: skip


def _unet() -> ModelCard:
    return ModelCard(
        name=UNET,
        license="Apache-2.0",
        task="segmentation",
        input_dtype="uint8",
        trained_on=STARTS_FRESH,
        summary="a small U-Net with GroupNorm (Ronneberger et al., MICCAI 2015)",
        input_kind="image",
        tasks=("segmentation",),
        options=(
            Option(
                name="width", default=16, low=4, high=256,
                about="channels of the first level, a multiple of 4",
            ),
            Option(name="depth", default=3, low=1, high=6, about="times the image is halved"),
        ),
        min_side=8,
    )  # fmt: skip


def _cifar(name: str) -> ModelCard:
    parameters, digest = CIFAR_WEIGHTS[name]
    return ModelCard(
        name=name,
        license="BSD-2-Clause (Y. Idelbayev)",
        task="classification",
        input_dtype="uint8",
        classes=CIFAR_CLASSES,
        parameters=parameters,
        head_inputs=64,
        weights=f"sha256:{digest}",
        trained_on="CIFAR-10's training set (32 x 32 photographs from the public web)",
        summary=f"{name.partition(':')[2]} of He et al. for 32 x 32 pixels, option A shortcuts",
        input_kind="image",
        options=(RANDOM, FEATURE_NORM),
        min_side=16,
        source=CIFAR_SOURCE,
    )

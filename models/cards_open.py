"""Cards of the models that other packages build: torchvision's, timm's and transformers'."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from .cards import (
    FEATURE_NORM,
    IMAGENET,
    PREDICTS,
    RANDOM,
    SIDE,
    UNKNOWN,
    ModelCard,
    Option,
)
from .fetch import asset_card

TORCHVISION, SEGMENTATION, TIMM, HF = "torchvision", "segmentation", "timm", "hf"
ASSET = "torchvision.json"
MINILM = "hf:sentence-transformers/all-MiniLM-L6-v2"
MINILM_WEIGHTS = "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TRAINED_ON: Mapping[str, str] = MappingProxyType(
    {
        "imagenet": IMAGENET,
        "swag": f"3.6 billion public Instagram images (SWAG), then {IMAGENET}",
        "coco": f"{IMAGENET}, then COCO 2017 images with the labels of Pascal VOC",
        MINILM: (
            "1.17 billion pairs of sentences from the public web (Reddit, S2ORC, WikiAnswers, "
            "Stack Exchange, MS MARCO and others), after what its base model read"
        ),
    }
)
_TIMM_NAME = re.compile(r"[a-z0-9][a-z0-9_]*(\.[a-z0-9_]+)?")
_HF_NAME = re.compile(
    r"(?!.*(^|/)\.\.?(/|$))[A-Za-z0-9_.][A-Za-z0-9_.-]*(/[A-Za-z0-9_.][A-Za-z0-9_.-]*)*"
)
_TAGS: Mapping[str, str] = MappingProxyType(
    {
        "in1k": IMAGENET,
        "in21k": "ImageNet-21K",
        "in22k": "ImageNet-22K",
        "in12k": "ImageNet-12K (a part of ImageNet-22K)",
        "jft": "JFT (Google's own images)",
        "lvd142m": "LVD-142M",
        "lvd1689m": "LVD-1689M",
        "laion2b": "LAION-2B",
        "laion400m": "LAION-400M",
        "openai": "OpenAI's own images and texts from the web (WIT)",
        "webli": "WebLI (Google's own images and texts from the web)",
        "cc12m": "Conceptual 12M",
        "inat21": "iNaturalist 2021",
        "merged2b": "Merged-2B (LAION-2B and COYO)",
        "yfcc1b": "YFCC and public Instagram images",
        "ig1b": "public Instagram images",
    }
)
"""Words in timm's tags, by longest match first where one begins another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenWeights:
    """One published file of weights: ``sha256`` its digest, or how that begins."""

    name: str
    sha256: str
    trained_on: str
    license: str
    url: str = ""
    side: int = 0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    sd: tuple[float, ...] = (0.229, 0.224, 0.225)

    def fits(self, digest: str) -> bool:
        """Return whether ``digest`` (``sha256:...``) may be that of this file."""
        return digest.removeprefix("sha256:").startswith(self.sha256)


def names() -> tuple[str, ...]:
    """Return the names of all models that are known without asking another package."""
    asset = asset_card(ASSET)
    return (
        *(f"{TORCHVISION}:{name}" for name in asset["classifiers"]),
        *(f"{SEGMENTATION}:{name}" for name in asset["segmenters"]),
        MINILM,
    )


def weights_of(name: str) -> tuple[OpenWeights, ...]:
    """Return the published weights of one of torchvision's models, the first ones first."""
    entry = _entry(name)
    return tuple(_weights(one) for one in entry["weights"]) if entry else ()


def published(name: str, digest: str | None) -> OpenWeights | None:
    """Return the published weights that have this digest, None for somebody else's."""
    return next((one for one in weights_of(name) if digest and one.fits(digest)), None)


def card(name: str) -> ModelCard | None:
    """Return the card of ``name``, None when no name of this form can be."""
    family, _, rest = name.partition(":")
    if (entry := _entry(name)) is not None:
        return _torchvision(name, entry)
    if family == TIMM and _TIMM_NAME.fullmatch(rest):
        return _timm(name, rest)
    if family == HF and _HF_NAME.fullmatch(rest):
        return _hf(name)
    return None


def written_as_path(name: str) -> str:
    """Return what to write for a folder that ``hf:`` names like a path (./x/y, /x/y, ../x, x/).

    '' for other names, 'FOLDER' where only the user can know it.
    """
    family, _, rest = name.partition(":")
    plain = rest.replace("\\", "/")
    if family != HF or _HF_NAME.fullmatch(rest) or "/" not in plain:
        return ""
    parts = [part for part in plain.split("/") if part not in ("", ".")]
    beside = plain.startswith("/") or not {"..", "~"}.isdisjoint(parts) or ":" in plain
    folder = "/".join(parts[-1:] if beside else parts)
    return folder if _HF_NAME.fullmatch(folder) else "FOLDER"


def digests_of(card: ModelCard) -> str:
    """Return the digests that are known of a model's weights, in words; '' when none is."""
    if card.weights:
        return card.weights
    known = [weights.sha256 for weights in weights_of(card.name)]
    whole = [f"sha256:{digest}" + "..." * (len(digest) < 64) for digest in known]
    return " or ".join(whole)


def _entry(name: str) -> dict[str, Any] | None:
    family, _, rest = name.partition(":")
    kind = {TORCHVISION: "classifiers", SEGMENTATION: "segmenters"}.get(family)
    return asset_card(ASSET)[kind].get(rest) if kind else None


def _weights(values: dict[str, Any]) -> OpenWeights:
    plain: dict[str, Any] = {
        name: tuple(held) if isinstance(held, list) else held for name, held in values.items()
    }
    plain["trained_on"] = TRAINED_ON[values["trained_on"]]
    return OpenWeights(**plain)


def _torchvision(name: str, entry: dict[str, Any]) -> ModelCard:
    first, segments = _weights(entry["weights"][0]), name.startswith(SEGMENTATION)
    short = name.partition(":")[2]
    fixed = short.startswith("vit_") or short.startswith("maxvit")
    return ModelCard(
        name=name,
        license=first.license,
        task="segmentation" if segments else "classification",
        input_dtype="uint8",
        parameters=entry["parameters"],
        trained_on=first.trained_on,
        summary=f"torchvision's {short}",
        input_kind="image",
        tasks=("segmentation",) if segments else PREDICTS,
        options=(RANDOM, SIDE) if segments else (RANDOM, SIDE, FEATURE_NORM),
        min_side=max(32, entry["min_side"]),
        fixed_side=fixed,
        pinned=True,
        source=first.url,
    )


def _timm(name: str, rest: str) -> ModelCard:
    return ModelCard(
        name=name,
        license=f"{UNKNOWN}: see the page of timm/{rest}",
        task="classification",
        input_dtype="uint8",
        trained_on=tag_trained_on(rest.partition(".")[2]),
        summary=f"timm's {rest}",
        input_kind="image",
        tasks=PREDICTS,
        options=(RANDOM, SIDE, FEATURE_NORM),
        min_side=32,
        pinned=True,
        source=f"https://huggingface.co/timm/{rest}",
    )


def tag_trained_on(tag: str) -> str:
    """Return what the tag of a timm model (``augreg_in21k_ft_in1k``) says it was trained on."""
    words = tag.split("_")
    sets = [text for word in words for key, text in _TAGS.items() if word == key]
    return ", then ".join(sets) if sets else f"{UNKNOWN}: the model's tag does not say"


def _hf(name: str) -> ModelCard:
    known = name == MINILM
    return ModelCard(
        name=name,
        license="Apache-2.0" if known else f"{UNKNOWN}: see its README.md",
        task="classification",
        input_dtype="int32",
        parameters=22_713_216 if known else 0,
        head_inputs=384 if known else 0,
        weights=MINILM_WEIGHTS if known else None,
        trained_on=TRAINED_ON.get(name, f"{UNKNOWN}: its README.md does not say"),
        summary=f"transformers' model of {name.partition(':')[2]}",
        input_kind="text",
        tasks=PREDICTS,
        options=(
            RANDOM,
            SIDE,
            FEATURE_NORM,
            Option(
                name="tokens",
                default=64,
                low=2,
                high=8192,
                about="tokens that are read of each text",
            ),
            Option(
                name="pool",
                default=0,
                low=0,
                high=2,
                about="0: as the model's files say; 1: mean of all tokens; 2: the first token",
            ),
        ),
        min_side=16,
        pinned=not known,
        source=f"https://huggingface.co/{name.partition(':')[2]}",
    )

"""Write what is known of open models: the asset of torchvision's, the table of docs/models.md."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "models" / "assets" / "torchvision.json"
PAGE = ROOT / "docs" / "models.md"
START, END = "<!-- cards: written by `python scripts/write_model_cards.py` -->\n", "<!-- /cards -->"
DEEP_COMPRESSION = {
    "squeezenet1_0": {
        "sha256": "f8a36886fdeb9a439ec546dbbab5363d8a30270304e2ad7d6dbd09d967763557",
        "name": "Deep Compression (S. Han), rewritten for torchvision",
        "trained_on": "imagenet",
        "license": "BSD-2-Clause",
    }
}
"""Weights for torchvision's nets that others published; their digests are known in full."""


def render() -> str:
    """Return the whole file."""
    import torchvision
    from torchvision.models import list_models, segmentation

    classifiers = {name: _entry(name) for name in list_models(module=torchvision.models)}
    segmenters = {name: _entry(name) for name in list_models(module=segmentation)}
    for name, weights in DEEP_COMPRESSION.items():
        classifiers[name]["weights"].append(weights)
    found: dict[str, Any] = {
        "torchvision": torchvision.__version__.partition("+")[0],
        "classifiers": classifiers,
        "segmenters": segmenters,
    }
    return json.dumps(found, indent=1, sort_keys=True) + "\n"


def _entry(name: str) -> dict[str, Any]:
    from torchvision.models import get_model_weights

    every = list(get_model_weights(name))
    first = every[0]
    return {
        "parameters": first.meta["num_params"],
        "classes": len(first.meta["categories"]),
        "min_side": max(first.meta["min_size"]),
        "weights": [_weights(one) for one in every],
    }


def _weights(one: Any) -> dict[str, Any]:
    swag = "SWAG" in one.name
    mean, sd = one.transforms().mean, one.transforms().std
    return {
        "name": one.name,
        "url": one.url,
        "sha256": one.url.rpartition("-")[2].partition(".")[0],
        "trained_on": "swag" if swag else "coco" if "COCO" in one.name else "imagenet",
        "license": "CC-BY-NC-4.0" if swag else "BSD-3-Clause",
        "side": (getattr(one.transforms(), "crop_size", None) or [0])[0],
        "mean": list(mean),
        "sd": list(sd),
    }


def page(text: str) -> str:
    """Return the page with the table of all cards of known names in its place."""
    before, _, rest = text.partition(START)
    return before + START + _table() + END + rest.partition(END)[2]


def _table() -> str:
    from collegium.models import registry

    lines = ["| model | tasks | trained on before | options | licence |", "|---|---|---|---|---|"]
    families = {"torchvision": 0, "segmentation": 0}
    for name in registry.names():
        family, card = name.partition(":")[0], registry.card(name)
        if card.pinned and family in families:
            families[family] += 1
            continue
        options = ", ".join(f"{option.name} {option.default:g}" for option in card.options)
        lines.append(
            f"| `{name}` | {', '.join(card.tasks)} | {card.trained_on} | {options} "
            f"| {card.license} |"
        )
    for family, count in families.items():
        lines.append(
            f"| `{family}:NAME` | {count} of torchvision | by digest | random, side"
            f"{', feature_norm' * (family == 'torchvision')} | by digest |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write both files, or with ``--check`` exit 1 when one is out of date."""
    for path, text in (
        (TARGET, render()),
        (PAGE, page(PAGE.read_text(encoding="utf-8"))),
    ):
        if "--check" not in sys.argv[1:]:
            path.write_text(text, encoding="utf-8", newline="\n")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.name} is out of date: python scripts/write_model_cards.py")


if __name__ == "__main__":
    main()

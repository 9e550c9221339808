"""Fetching open weights from their public hub, where the plan allows it."""

from __future__ import annotations

from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from ..core.digest import sha256_hex
from ..core.errors import MissingInput, NotAvailable, Refused
from ..core.files import write_atomic
from .cards import ModelCard
from .cards_open import HF, TIMM, digests_of, weights_of
from .weights import cache_folders

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef

FILES = ("*.json", "*.txt", "*.model", "README.md", "model.safetensors")
"""What is fetched of a model on Hugging Face: no program and no pickle."""


def fetch_weights(card: ModelCard, ref: ModelRef, digest: str) -> Path:
    """Return a file from the model's hub, kept in the usual cache, whose digest is ``digest``.

    Raises ``MissingInput`` when the hub cannot be reached or has none, ``Refused`` for others.
    """
    family, _, rest = ref.name.partition(":")
    if family in (TIMM, HF):
        return _hf_folder(f"timm/{rest}" if family == TIMM else rest) / "model.safetensors"
    for weights in weights_of(ref.name):
        if weights.url and weights.fits(digest):
            return _download(weights.url, digest)
    if digest == card.weights:
        raise MissingInput(
            f"The weights of '{ref.name}' cannot be fetched",
            why="they are on no hub that is asked here",
            cure=f"bring the file with the digest {digest} by hand from {card.source}, and set "
            "COLLEGIUM_WEIGHTS to the folder in which it lies",
        )
    raise MissingInput(
        f"The hub of '{ref.name}' lists no weights with the digest {digest}",
        why="what is fetched must be what the plan pins",
        cure=_known_weights(card),
    )


def _known_weights(card: ModelCard) -> str:
    known = digests_of(card)
    if not known:
        return f"pin the weights of {card.source}" if card.source else "name a local file"
    source = f" ({card.source})" if card.source else ""
    return f"pin published weights, whose digest is {known}{source}, or bring the file by hand"


def _download(url: str, digest: str) -> Path:
    try:
        with urlopen(url, timeout=60) as answer:
            content = answer.read()
    except (OSError, HTTPException) as error:
        raise MissingInput(
            f"The weights could not be fetched ({type(error).__name__})",
            why=f"{url} could not be read",
            cure="look at the network, or bring the file by hand and set COLLEGIUM_WEIGHTS",
        ) from error
    if (found := sha256_hex(content)) != digest:
        raise Refused(
            f"{url} gave bytes with the digest {found}, but {digest} was pinned",
            why="every site must start from the same bytes",
            cure="agree on a new plan if the publisher changed the file",
        )
    target = cache_folders()[0] / url.rpartition("/")[2]
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(target, content)
    return target


def hf_folder(name: str, *, hub: bool) -> Path | None:
    """Return the folder of a Hugging Face model in the cache, or fetched with ``hub``."""
    if hub:
        return _hf_folder(name)
    if find_spec("huggingface_hub") is None or name.count("/") > 1:
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _hf_folder(name: str) -> Path:
    if find_spec("huggingface_hub") is None:
        raise NotAvailable(
            "Hugging Face's hub cannot be asked",
            why="the package huggingface_hub is not installed",
            cure="pip install 'collegium[hf]'",
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    failed = (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError)
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except failed as error:
        raise MissingInput(
            f"'{name}' could not be fetched from Hugging Face ({type(error).__name__})",
            why="the hub cannot be reached from here, or does not know it",
            cure="bring its folder by hand and set COLLEGIUM_WEIGHTS to where it lies",
        ) from error

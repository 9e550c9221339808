"""Bytes of open weights to named tensors: safetensors, or torch files that hold tensors alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.digest import sha256_hex
from ..core.errors import InvalidInput, MissingInput, Refused
from .cards import ModelCard
from .hub import fetch_weights
from .weights import SETTING, find_weights

if TYPE_CHECKING:
    from torch import Tensor

    from ..core.plan_model import ModelRef

State = dict[str, "Tensor"]
Source = Callable[[], State]
"""Gives the checked open weights, when they are wanted."""


def state_of(card: ModelCard, ref: ModelRef) -> State:
    """Return the open weights of a plan's model, pinned by digest, as float32 tensors.

    A local file with that digest comes first; then, with ``hub = true``, the model's public hub.
    Raises ``InvalidInput`` when no digest is pinned, ``MissingInput`` when no file has it, and
    ``Refused`` for other bytes.
    """
    return read_state(weights_file(card, ref), pinned(card, ref))


def pinned(card: ModelCard, ref: ModelRef) -> str:
    """Return the digest of the weights; raises ``InvalidInput`` when nobody names it."""
    digest = ref.weights or card.weights
    if digest is None:
        raise InvalidInput(
            f"The weights of '{ref.name}' are not pinned",
            why="every site must start from the same bytes",
            cure='write weights = "sha256:..." (what sha256sum prints of the file), or '
            "[model.options] random = 1 to start from random weights",
        )
    return digest


def weights_file(card: ModelCard, ref: ModelRef) -> Path:
    """Return a file with the pinned digest; raises as ``state_of``."""
    digest = pinned(card, ref)
    if (found := find_weights(digest)) is not None:
        return found
    if ref.hub:
        return fetch_weights(card, ref, digest)
    source = f" (from {card.source})" if card.source else ""
    raise MissingInput(
        f"No file here has the digest {digest} of the weights of '{ref.name}'",
        why=f"{SETTING} names no folder that holds it, and the plan does not say hub = true",
        cure=f"put the file{source} into a folder and set {SETTING} to that folder",
    )


def read_state(path: Path, digest: str) -> State:
    """Return the tensors of a file with that digest, under their plain names, as float32.

    Raises ``Refused`` when the bytes differ or hold more than tensors.
    """
    content = path.read_bytes()
    if (found := sha256_hex(content)) != digest:
        raise Refused(
            f"The weights '{path.name}' have the digest {found}, but {digest} was pinned",
            why="a fine-tuned model is only as trustworthy as the open model it started from",
            cure="fetch the file again, or agree on a new plan",
        )
    return plain_state(decode(content, path.name))


def decode(content: bytes, name: str) -> Mapping[str, Any]:
    """Return what a safetensors or torch file holds; nothing in it is ever executed.

    Raises ``Refused`` for a file that holds more than tensors and plain values.
    """
    import torch
    from safetensors.torch import load

    try:
        if content[8:9] == b"{":
            return load(content)
        held = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # broken bytes bring torch's reader to any exception at all
        raise Refused(
            f"'{name}' is no file of weights ({type(error).__name__})",
            why="weights are read as tensors alone: a pickle could run a program",
            cure="convert it to safetensors where you trust it, and pin the new digest",
        ) from error
    if not isinstance(held, Mapping):
        raise Refused(
            f"'{name}' holds {type(held).__name__}, not named tensors",
            why="weights are loaded by name",
            cure="save the model's state_dict()",
        )
    return held


def plain_state(held: Mapping[str, Any]) -> State:
    """Return named tensors without the wrappers of training programs, halves as float32.

    ``state_dict`` or ``model`` around them and a ``module.`` before every name go.
    """
    import torch

    for wrapper in ("state_dict", "model", "model_state_dict"):
        inner = held.get(wrapper)
        if isinstance(inner, Mapping):
            held = inner
            break
    found = {str(name): value for name, value in held.items() if isinstance(value, torch.Tensor)}
    if found and all(name.startswith("module.") for name in found):
        found = {name.removeprefix("module."): value for name, value in found.items()}
    halves = (torch.float16, torch.bfloat16)
    return {
        name: value.float() if value.dtype in halves else value for name, value in found.items()
    }


def load_strictly(model: Any, state: State, name: str) -> None:
    """Load every tensor; raises ``InvalidInput`` when names or shapes do not fit the model."""
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidInput(
            f"The pinned weights do not fit '{name}'",
            why=str(error).partition("\n")[0],
            cure="pin weights of this very architecture",
        ) from error

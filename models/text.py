"""Texts to token numbers, as the plan's model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput, NotAvailable
from .catalog import card
from .text_hashed import hashed_tokens

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef


def encode(ref: ModelRef, texts: Sequence[str]) -> NDArray[np.int32]:
    """Return (n, tokens) int32 numbers of n texts; longer texts are cut, shorter ones padded.

    Raises ``InvalidInput`` for a model of other inputs, ``NotAvailable`` without transformers
    where its tokenizer is needed, and ``MissingInput`` without the model's folder.
    """
    found = card(ref.name)
    if ref.name.startswith("hf:"):
        return _hf_tokens(ref, texts, found.whole(ref, "tokens"))
    if found.input_kind != "text":
        raise InvalidInput(
            f"'{ref.name}' does not read texts",
            why=f"it reads records of the kind '{found.input_kind}'",
            cure="name a text model, such as text:hashed",
        )
    return hashed_tokens(
        texts,
        buckets=found.whole(ref, "buckets"),
        tokens=found.whole(ref, "tokens"),
        bigrams=bool(found.whole(ref, "bigrams")),
    )


def _hf_tokens(ref: ModelRef, texts: Sequence[str], tokens: int) -> NDArray[np.int32]:
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        raise NotAvailable(
            "the tokenizers of transformers are not available here",
            why="the package transformers is not installed",
            cure="pip install 'collegium[hf]'",
        )
    from transformers import AutoTokenizer

    from .hf_folder import config_of, folder_of

    folder = folder_of(ref)
    tokenizer = AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if not texts:
        return np.zeros((0, tokens), dtype=np.int32)
    found = tokenizer(
        list(texts), padding="max_length", truncation=True, max_length=tokens, return_tensors="np"
    )
    numbers = np.asarray(found["input_ids"], dtype=np.int32)
    # the model tells padding by its number in config.json
    padding = config_of(folder).get("pad_token_id")
    numbers[np.asarray(found["attention_mask"]) == 0] = -1 if padding is None else padding
    return numbers

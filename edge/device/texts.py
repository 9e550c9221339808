"""Texts to token numbers, by the tokenizer that input.json describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .errors import bad_file
from .forms import Form
from .hashed_words import hashed_words
from .names import FORM_FILE, VOCABULARY_FILE
from .wordpiece import WordPiece

Tokenizer = Callable[[Sequence[str]], np.ndarray]
MOST_TOKENS = 1 << 16


def tokenizer_of(form: Form, vocabulary: bytes) -> Tokenizer | None:
    """Return the tokenizer of a form, None where records are no texts.

    ``vocabulary`` is the signed vocab.txt, b"" where there is none. Raises ``DeviceError``.
    """
    if form.kind != "text":
        return None
    told = form.tokenizer
    try:
        if not 0 < told["tokens"] <= MOST_TOKENS:
            raise ValueError("tokens")
        if told["kind"] == "hashed":
            return _hashed(told)
        if told["kind"] == "wordpiece":
            return _wordpiece(told, vocabulary)
    except (ValueError, KeyError, TypeError):
        raise bad_file(FORM_FILE, f"or {VOCABULARY_FILE} describes no tokenizer") from None
    raise bad_file(FORM_FILE, "names a tokenizer that this program does not have")


def _hashed(told: Mapping[str, Any]) -> Tokenizer:
    buckets, tokens, bigrams = int(told["buckets"]), int(told["tokens"]), bool(told["bigrams"])
    if not 0 < buckets < 1 << 31:
        raise ValueError("buckets")
    return lambda texts: hashed_words(texts, buckets=buckets, tokens=tokens, bigrams=bigrams)


def _wordpiece(told: Mapping[str, Any], vocabulary: bytes) -> Tokenizer:
    pieces = vocabulary.decode("utf-8").replace("\r\n", "\n").removesuffix("\n").split("\n")
    special = {name: _number(told[name], pieces) for name in ("cls", "sep", "unk", "pad")}
    return WordPiece(
        pieces,
        tokens=int(told["tokens"]),
        lowercase=bool(told["lowercase"]),
        strip_accents=bool(told["strip_accents"]),
        chinese=bool(told["chinese"]),
        padding_as=int(told["padding_as"]),
        **special,
    )


def _number(piece: object, pieces: Sequence[str]) -> int:
    """Return the number of a special piece, which is given by number or by name."""
    return piece if isinstance(piece, int) else pieces.index(str(piece))

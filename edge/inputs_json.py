"""input.json: how a device turns a file into the raw records that the model reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput, NotBuiltYet
from ..core.plan_model import ModelRef
from ..models.catalog import card
from ..models.outputs import input_kind

if TYPE_CHECKING:
    from .inputs_wordpiece import WordPiece

SCHEMA = 1
VOCABULARY = "vocab.txt"
DTYPES = ("float32", "uint8", "int32")
HASHED = "text:hashed"


def input_json(
    ref: ModelRef,
    shape: Sequence[int],
    dtype: str | np.dtype[Any],
    *,
    wordpiece: WordPiece | None = None,
) -> dict[str, Any]:
    """Return input.json for models that read records of this ``shape`` and ``dtype``.

    ``shape`` is one raw record's, ``dtype`` that of the file's input "x". A transformers text
    model needs ``wordpiece``, from ``inputs_wordpiece.wordpiece_of``. Raises ``InvalidInput``
    for records that the plan's model does not read.
    """
    name = np.dtype(dtype).name
    if name not in DTYPES:
        raise InvalidInput(
            f"records of type {name} have no form on a device",
            why=f"model files read {', '.join(DTYPES)}",
            cure="export the model with one of these",
        )
    kind = kind_of(ref, shape)
    found: dict[str, Any] = {"schema": SCHEMA, "kind": kind, "dtype": name, "shape": list(shape)}
    if kind == "table":
        _require_columns(ref, shape)
        return found | table_form(ref)
    if kind == "text":
        return found | {"tokenizer": tokenizer_form(ref, shape, wordpiece)}
    return found


def kind_of(ref: ModelRef, shape: Sequence[int]) -> str:
    """Return how a device reads one record of ``shape``: image, table, text or array.

    Images have height, width and channels; two-dimensional ones, as the glyphs of 0 to 16, are
    arrays.
    """
    kind = input_kind(ref)
    if kind == "image":
        return "image" if len(shape) == 3 and not card(ref.name).input_shape else "array"
    return kind if kind in ("table", "text") else "array"


def table_form(ref: ModelRef) -> dict[str, Any]:
    """Return the columns in order, and what becomes of missing numbers and unknown categories."""
    numbers = [
        {"name": name, "low": float(low), "high": float(high)}
        for name, (low, high) in ref.bounds.items()
    ]
    categories = [
        {"name": name, "categories": list(known)} for name, known in ref.categories.items()
    ]
    return {
        "columns": [*numbers, *categories],
        "missing": ref.missing,
        "unknown": ref.unknown,
    }


def tokenizer_form(
    ref: ModelRef, shape: Sequence[int], wordpiece: WordPiece | None = None
) -> dict[str, Any]:
    """Return how a text becomes token numbers: hashed words, or BERT's WordPiece."""
    if wordpiece is not None:
        return wordpiece.form(int(shape[0]))
    if ref.name != HASHED:
        raise NotBuiltYet(
            f"a device cannot read texts for '{ref.name}'",
            why="it knows the tokenizers of text:hashed and, where it is described, WordPiece",
            cure='use text:hashed or a BERT-like model, or write [edge] student = "none"',
        )
    found = card(ref.name)
    return {
        "kind": "hashed",
        "buckets": found.whole(ref, "buckets"),
        "tokens": int(shape[0]),
        "bigrams": bool(found.whole(ref, "bigrams")),
    }


def extra_files(wordpiece: WordPiece | None) -> dict[str, bytes]:
    """Return the files that the tokenizer needs on a device: its vocabulary, where it has one."""
    return {} if wordpiece is None else {VOCABULARY: wordpiece.vocabulary_bytes()}


def sample_texts(count: int, *, seed: int = 0) -> list[str]:
    """Return ``count`` deterministic made-up texts for self-tests; no one wrote them.

    Plain words, accents (composed and decomposed), digits, signs, Chinese, emoji, odd spaces,
    control characters, an empty one and one far longer than any model reads.
    """
    rng = np.random.default_rng(seed)
    texts: list[str] = [*_CORNERS[:count]]
    while len(texts) < count:
        words = [str(word) for word in rng.choice(_WORDS, size=int(rng.integers(2, 30)))]
        texts.append(str(rng.choice(_GLUE)).join(words))
    return texts


def sample_tokens(
    ref: ModelRef, texts: Sequence[str]
) -> tuple[NDArray[np.int32], NDArray[np.str_]]:
    """Return the token numbers (n, tokens) of texts, and the texts as selftest.npz holds them."""
    from ..models.text import encode

    return encode(ref, texts), np.array(texts, dtype=np.str_)


def _require_columns(ref: ModelRef, shape: Sequence[int]) -> None:
    columns = len(ref.bounds) + len(ref.categories)
    if tuple(shape) != (columns,) or columns == 0:
        raise InvalidInput(
            f"records of shape {tuple(shape)} are no rows of this plan's table",
            why=f"[model.bounds] and [model.categories] name {columns} columns",
            cure="give rows with these columns, in this order",
        )


_WORDS = (
    "dear", "hello", "free", "money", "you", "won", "call", "now", "patient", "shows", "fever",
    "unbelievable", "CAPITALS", "naïve", "café", "Straße", "Ångström", "señor", "don't", "e-mail",
    "3.14", "07700", "100%", "x=1", "#tag", "@name", "日本語", "数据", "😀", "мир", "ελλάδα",
)  # fmt: skip
_GLUE = (" ", "  ", ", ", "\n", "\t", "-", "... ")
_CORNERS = (
    "hello you, call now",
    "Café naïve Ångström STRASSE Straße",
    "cafe\u0301 nai\u0308ve",
    "1234567890 3.14 1,000,000 50% 2024-01-02",
    "don't stop!!! (really?) [yes] {no} a/b\\c #tag @name ~^`|",
    "日本語のテキスト 数据分析 混合mixed文字",
    "😀😀 👩‍⚕️ 🇪🇺 ok",
    "",
    "   \t\n  ",
    "a\u0000b\ufffdc\u200bd\u00ade\u2028f\u00a0g\u3000h",
    "antidisestablishmentarianism" * 8,
    "\uff26\uff35\uff2c\uff2c \uff57\uff49\uff44\uff54\uff48 \ufb01ligree \u00bd \u00b2 \u2167",
    "\u0130stanbul \u0131ss\u0131z \u01c5 \u00df \u03c2 \u03a3",
    "long " * 600,
    "[CLS] [SEP] [PAD] [UNK] [MASK]",
    "नमस्ते दुनिया สวัสดี 안녕하세요 שלום مرحبا",
)

"""What a device must know of a BERT tokenizer, from the files of an open model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..core.errors import InvalidInput, NotAvailable, NotBuiltYet
from ..core.plan_model import ModelRef
from ..models.hf_folder import config_of, folder_of

_SUPPORTED = "a device knows BERT's WordPiece tokenizer alone"


@dataclass(frozen=True, slots=True, kw_only=True)
class WordPiece:
    """BERT's tokenizer (Devlin et al., 2019): cleaning, splitting, greedy longest pieces.

    ``vocabulary`` in order of its numbers; ``padding_as`` is the number written at padded places
    (models/text.py).
    """

    vocabulary: tuple[str, ...]
    lowercase: bool
    strip_accents: bool
    chinese: bool
    cls: str
    sep: str
    unk: str
    pad: str
    padding_as: int

    def form(self, tokens: int) -> dict[str, Any]:
        """Return the ``tokenizer`` entry of input.json for ``tokens`` numbers per text."""
        places = {token: number for number, token in enumerate(self.vocabulary)}
        special = {name: places[getattr(self, name)] for name in ("cls", "sep", "unk", "pad")}
        return {
            "kind": "wordpiece",
            "tokens": tokens,
            "lowercase": self.lowercase,
            "strip_accents": self.strip_accents,
            "chinese": self.chinese,
            **special,
            "padding_as": self.padding_as,
        }

    def vocabulary_bytes(self) -> bytes:
        """Return vocab.txt: one token per line, its number the line's, counted from 0."""
        return ("\n".join(self.vocabulary) + "\n").encode()


def wordpiece_of(ref: ModelRef) -> WordPiece:
    """Return the tokenizer of a plan's transformers model as a device can run it.

    Read from the fast tokenizer that transformers builds from the model's folder, the one with
    which ``models.text.encode`` made the training tokens. Raises ``NotBuiltYet`` for any other
    kind of tokenizer, ``NotAvailable`` without transformers, ``MissingInput`` without the folder.
    """
    if find_spec("transformers") is None:
        raise NotAvailable(
            "the tokenizers of transformers are not available here",
            why="the package transformers is not installed",
            cure="pip install 'collegium[hf]'",
        )
    from transformers import AutoTokenizer

    folder = folder_of(ref)
    tokenizer: Any = AutoTokenizer.from_pretrained(
        str(folder), local_files_only=True, trust_remote_code=False
    )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _not_built(ref, "its tokenizer is no fast tokenizer")
    told: dict[str, Any] = json.loads(backend.to_str())
    if fault := fault_of(told):
        raise _not_built(ref, fault)
    model, normal = told["model"], told["normalizer"]
    cls, sep = _ends(told)
    padding = config_of(folder).get("pad_token_id")
    strip = normal.get("strip_accents")
    pad = tokenizer.pad_token or tokenizer.eos_token
    found = WordPiece(
        vocabulary=_ordered(model["vocab"]),
        lowercase=bool(normal["lowercase"]),
        strip_accents=bool(normal["lowercase"] if strip is None else strip),
        chinese=bool(normal["handle_chinese_chars"]),
        cls=cls,
        sep=sep,
        unk=model["unk_token"],
        pad=pad,
        padding_as=-1 if padding is None else int(padding),
    )
    missing = {found.cls, found.sep, found.unk, found.pad} - set(found.vocabulary)
    if missing:
        raise _not_built(ref, "a special token is not in its vocabulary")
    return found


def fault_of(told: Mapping[str, Any]) -> str:
    """Return why a serialised fast tokenizer is not BERT's, '' when it is."""
    model, normal = told.get("model") or {}, told.get("normalizer") or {}
    added = [each for each in told.get("added_tokens") or [] if not each.get("special")]
    faults = {
        f"its model is {model.get('type', 'of no known type')}, not WordPiece": (
            model.get("type") != "WordPiece"
        ),
        "its pieces go on with another sign than ##": (
            model.get("continuing_subword_prefix") != "##"
        ),
        "its longest word is not 100 letters": model.get("max_input_chars_per_word") != 100,
        "its normalizer is not BERT's": normal.get("type") != "BertNormalizer",
        "it does not clean the text": not normal.get("clean_text"),
        "its splitter is not BERT's": (
            (told.get("pre_tokenizer") or {}).get("type") != "BertPreTokenizer"
        ),
        "it has tokens that were added by hand": bool(added),
    }
    return next((fault for fault, is_so in faults.items() if is_so), "")


def _ends(told: Mapping[str, Any]) -> tuple[str, str]:
    """Return the tokens before and after a text; raises ``NotBuiltYet`` for another template."""
    after = told.get("post_processor") or {}
    if after.get("type") == "BertProcessing":
        return str(after["cls"][0]), str(after["sep"][0])
    single = after.get("single") or []
    kinds = [next(iter(each)) for each in single]
    if kinds != ["SpecialToken", "Sequence", "SpecialToken"]:
        raise NotBuiltYet("this tokenizer frames a text in another way", why=_SUPPORTED)
    return str(single[0]["SpecialToken"]["id"]), str(single[2]["SpecialToken"]["id"])


def _ordered(vocabulary: Mapping[str, int]) -> tuple[str, ...]:
    """Return the tokens by number; raises ``InvalidInput`` when the numbers have holes."""
    numbers = np.array(sorted(vocabulary.values()))
    ordered = sorted(vocabulary, key=lambda token: vocabulary[token])
    broken = any("\n" in token or "\r" in token for token in ordered)
    if broken or not np.array_equal(numbers, np.arange(len(numbers))):
        raise InvalidInput(
            "the tokenizer's vocabulary cannot be written as lines",
            why="its numbers have holes, or a token holds a line break",
            cure="fetch the model's folder again",
        )
    return tuple(ordered)


def _not_built(ref: ModelRef, why: str) -> NotBuiltYet:
    return NotBuiltYet(
        f"a device cannot read texts for '{ref.name}'",
        why=f"{why}; {_SUPPORTED}",
        cure='use a BERT-like model or text:hashed, or write [edge] student = "none"',
    )

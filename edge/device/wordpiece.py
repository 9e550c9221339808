"""Texts to the numbers of their word pieces, as BERT's tokenizer reads them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from .wordpiece_tables import CONTROL_RANGES, MARK_RANGES, PUNCTUATION_RANGES

MOST_LETTERS = 100
"""A longer word is unknown."""
WHITE = "\t\n\r \x0b\x0c\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
CHINESE = (
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002b81f"
    "\U0002b920-\U0002ceaf\U0002f800-\U0002fa1f"
)


class WordPiece:
    """BERT's tokenizer over a vocabulary: clean, split, then the longest piece that is known.

    Devlin et al. 2019; equal, number by number, to ``BertTokenizer`` of transformers. ``cls``,
    ``sep``, ``unk`` and ``pad`` are numbers of the vocabulary; ``padding_as`` is written at
    padded places.
    """

    def __init__(
        self,
        vocabulary: Sequence[str],
        *,
        tokens: int,
        lowercase: bool,
        strip_accents: bool,
        chinese: bool,
        cls: int,
        sep: int,
        unk: int,
        pad: int,
        padding_as: int,
    ) -> None:
        special = sorted({cls, sep, unk, pad})
        if tokens < 2 or not 0 <= special[0] <= special[-1] < len(vocabulary):
            raise ValueError("the special pieces are not in the vocabulary")
        self._numbers: Mapping[str, int] = {piece: i for i, piece in enumerate(vocabulary)}
        self._longest = max(len(piece) for piece in vocabulary)
        self._tokens, self._padding_as = tokens, padding_as
        self._ends, self._unknown = (cls, sep), unk
        self._lowercase, self._strip, self._chinese = lowercase, strip_accents, chinese
        names = {vocabulary[i] for i in special} | ({"[MASK]"} & self._numbers.keys())
        # what a text says of them literally is read as the piece itself, as transformers does
        self._special = re.compile(f"({'|'.join(map(re.escape, sorted(names)))})")
        punctuation = _class(PUNCTUATION_RANGES)
        self._dropped = re.compile(f"[{_class(CONTROL_RANGES)}]")
        self._marks = re.compile(f"[{_class(MARK_RANGES)}]")
        self._ideograph = re.compile(f"([{CHINESE}])")
        self._words = re.compile(f"[{punctuation}]|[^{WHITE}{punctuation}]+")

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return (n, tokens) int32; longer texts are cut, shorter ones padded."""
        found = np.full((len(texts), self._tokens), self._padding_as, dtype=np.int32)
        for row, text in enumerate(texts):
            inner: list[int] = []
            for number in self._pieces(text):
                if len(inner) == self._tokens - 2:
                    break
                inner.append(number)
            whole = [self._ends[0], *inner, self._ends[1]]
            found[row, : len(whole)] = whole
        return found

    def _pieces(self, text: str) -> Iterator[int]:
        for place, part in enumerate(self._special.split(text)):
            if place % 2:
                yield self._numbers[part]
                continue
            for word in self._words.findall(self._normalized(part)):
                yield from self._split(word)

    def _normalized(self, text: str) -> str:
        text = self._dropped.sub("", text)
        if self._chinese:
            text = self._ideograph.sub(r" \1 ", text)
        if self._strip:
            text = self._marks.sub("", unicodedata.normalize("NFD", text))
        # letter by letter: a Greek sigma at a word's end is a sigma
        return "".join([letter.lower() for letter in text]) if self._lowercase else text

    def _split(self, word: str) -> list[int]:
        """Return the longest known pieces from left to right, or the unknown one."""
        if len(word) > MOST_LETTERS:
            return [self._unknown]
        found: list[int] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                number = self._numbers.get(prefix + word[start:end])
                if number is not None:
                    break
            else:
                return [self._unknown]
            found.append(number)
            start = end
        return found


def _class(ranges: str) -> str:
    """Return hexadecimal ranges as what stands between the brackets of a pattern."""
    pairs = (each.partition("-") for each in ranges.split())
    return "".join(
        f"\\U{int(low, 16):08x}" + (f"-\\U{int(high, 16):08x}" if high else "")
        for low, _, high in pairs
    )

"""Texts to the buckets of their words, as Collegium's hashed text model reads them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise

import numpy as np

WORD = re.compile(r"\w+|[^\w\s]")


def hashed_words(texts: Sequence[str], *, buckets: int, tokens: int, bigrams: bool) -> np.ndarray:
    """Return (n, tokens) int32 buckets of the words of n texts, -1 after the last one.

    Words are runs of letters and digits, and single signs, in lower case after NFKC; a number
    counts by its length alone. With ``bigrams`` each pair of neighbours follows, too.
    """
    found = np.full((len(texts), tokens), -1, dtype=np.int32)
    for row, text in enumerate(texts):
        words = [
            "0" * len(word) if word.isdigit() else word
            for word in WORD.findall(unicodedata.normalize("NFKC", text).lower())
        ]
        if bigrams:
            words += [f"{first} {second}" for first, second in pairwise(words)]
        for place, word in enumerate(words[:tokens]):
            digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            found[row, place] = int.from_bytes(digest, "little") % buckets
    return found

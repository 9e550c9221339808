"""A linear model over hashed words: no vocabulary that could tell of the records."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

    from ..core.plan_model import ModelRef
    from .cards import ModelCard
    from .states import Source

_WORD = re.compile(r"\w+|[^\w\s]")
PADDING = -1


def hashed_tokens(
    texts: Sequence[str], *, buckets: int, tokens: int, bigrams: bool
) -> NDArray[np.int32]:
    """Return (n, tokens) int32 buckets of the words of n texts, -1 after the last one.

    Words are runs of letters and digits, and single signs, in lower case after NFKC; a number
    counts by its length alone, for a telephone number is no word. With ``bigrams`` each pair of
    neighbours follows, too, after all single words. The hash is BLAKE2b, so that every machine
    agrees (Weinberger et al., ICML 2009).
    """
    found = np.full((len(texts), tokens), PADDING, dtype=np.int32)
    known: dict[str, int] = {}
    for row, text in enumerate(texts):
        found_words = _WORD.findall(unicodedata.normalize("NFKC", text).lower())
        words = ["0" * len(word) if word.isdigit() else word for word in found_words]
        if bigrams:
            words += [f"{first} {second}" for first, second in pairwise(words)]
        for place, word in enumerate(words[:tokens]):
            if word not in known:
                known[word] = _bucket(word, buckets)
            found[row, place] = known[word]
    return found


def _bucket(word: str, buckets: int) -> int:
    return int.from_bytes(blake2b(word.encode(), digest_size=8).digest(), "little") % buckets


def build(card: ModelCard, ref: ModelRef, source: Source | None) -> nn.Module:
    """Return the model, its weights zero."""
    from torch import nn

    from .heads import Headed, zero_head
    from .outputs import outputs
    from .text_counts import Counts

    del source
    buckets = card.whole(ref, "buckets")
    norm = card.option(ref, "feature_norm")
    return Headed(Counts(buckets, norm), nn.Identity(), zero_head(buckets, outputs(ref)))

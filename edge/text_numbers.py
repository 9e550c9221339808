"""Which token numbers a plan's text model reads, for texts that nobody wrote."""

from __future__ import annotations

import numpy as np

from ..core.plan_model import ModelRef
from ..data.transfer_noise import Tokens
from ..models import registry
from .inputs_json import HASHED
from .inputs_wordpiece import wordpiece_of

_PADDING = -1  # where hashed texts end (models/text_hashed.py)


def tokens_of(ref: ModelRef) -> Tokens | None:
    """Return the numbers that the tokenizer of a text model writes, None for other models.

    Raises ``NotBuiltYet`` for a tokenizer that no device knows, so that a plan without a way to
    the device is found here.
    """
    if registry.input_kind(ref) != "text":
        return None
    count = registry.input_shape(ref)[0]
    if ref.name == HASHED:
        buckets = registry.card(ref.name).whole(ref, "buckets")
        words = np.arange(buckets, dtype=np.int32)
        return Tokens(count=count, words=words, padding=_PADDING)
    wordpiece = wordpiece_of(ref)
    form = wordpiece.form(count)
    special = [form[name] for name in ("cls", "sep", "unk", "pad")]
    numbers = np.arange(len(wordpiece.vocabulary), dtype=np.int32)
    return Tokens(
        count=count,
        words=numbers[~np.isin(numbers, special)],
        padding=form["padding_as"],
        first=(form["cls"],),
        last=(form["sep"],),
    )

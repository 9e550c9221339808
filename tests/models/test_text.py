"""Hashed words: the same numbers on every machine, no vocabulary, counts of length one."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.errors import InvalidInput
from collegium.core.plan_model import ModelRef
from collegium.models import registry
from collegium.models.text import encode
from collegium.models.text_counts import Counts
from collegium.models.text_hashed import hashed_tokens

HASHED = ModelRef(
    name="text:hashed",
    task="classification",
    classes=("ham", "spam"),
    options={"buckets": 64.0, "tokens": 6.0},
)


def test_words_and_signs_in_lower_case() -> None:
    one, two = hashed_tokens(
        ["Win CASH, now!", "win cash , now !"], buckets=64, tokens=6, bigrams=False
    )
    assert one.tolist() == two.tolist()
    assert one[5] == -1 and (one[:5] >= 0).all()


def test_the_hash_is_the_same_on_every_machine() -> None:
    # BLAKE2b of 8 bytes, read little endian, modulo 1000; an update of the hash would change it
    assert hashed_tokens(["FREE"], buckets=1000, tokens=1, bigrams=False).tolist() == [[357]]


def test_pairs_follow_the_words() -> None:
    plain = hashed_tokens(["a b c"], buckets=2**20, tokens=9, bigrams=False)[0]
    pairs = hashed_tokens(["a b c"], buckets=2**20, tokens=9, bigrams=True)[0]
    assert pairs[:3].tolist() == plain[:3].tolist()
    assert (pairs >= 0).sum() == 5 and len(set(pairs[:5].tolist())) == 5


@given(texts=st.lists(st.text(max_size=30), max_size=4), buckets=st.integers(16, 2**20))
def test_any_text_gives_numbers_in_range(texts: list[str], buckets: int) -> None:
    found = hashed_tokens(texts, buckets=buckets, tokens=5, bigrams=True)
    assert found.shape == (len(texts), 5) and found.dtype == np.int32
    assert ((found >= -1) & (found < buckets)).all()
    padding = found == -1
    assert (padding[:, 1:] >= padding[:, :-1]).all()  # after the last word only


def test_numbers_count_by_their_length() -> None:
    one, two, three = (
        hashed_tokens([text], buckets=2**20, tokens=2, bigrams=False).tolist()
        for text in ("call 0711", "call 4242", "call 42")
    )
    assert one == two != three


def test_counts_have_length_one_and_no_words_give_zeros() -> None:
    x = torch.tensor([[1.0, 1.0, 3.0, -1.0], [-1.0, -1.0, -1.0, -1.0]])
    found = Counts(4)(x)
    assert found[0].tolist() == pytest.approx([0, (2 / 3) ** 0.5, 0, (1 / 3) ** 0.5])
    assert found[1].tolist() == [0, 0, 0, 0]


def test_encode_is_what_the_model_reads() -> None:
    texts = np.array(["free money", "hello you"], dtype=object)
    found = registry.encode(HASHED, texts)
    assert found.shape == (2, 6) and found.dtype == np.int32
    assert np.array_equal(found, encode(HASHED, list(texts)))
    assert np.array_equal(registry.encode(HASHED, found), found)


@pytest.mark.parametrize(
    ("ref", "x", "words"),
    [
        (HASHED, np.zeros((3, 5), dtype=np.int32), "shape"),
        (HASHED, np.full((3, 6), -2, dtype=np.int32), "3 of 3"),
    ],
)
def test_what_does_not_fit_is_refused(ref: ModelRef, x: np.ndarray, words: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(InvalidInput, match=words):
        registry.encode(ref, x)


def test_a_table_model_reads_no_texts() -> None:
    table = ModelRef(
        name="tabular:mlp", task="classification", classes=("a", "b"), bounds={"x": (0, 1)}
    )
    with pytest.raises(InvalidInput, match="does not read texts"):
        encode(table, ["hello"])
    with pytest.raises(InvalidInput, match="do not fit"):
        registry.encode(table, np.array(["hello"], dtype=object))

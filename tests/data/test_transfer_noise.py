"""Made-up records: textures within range and unlike each other, texts as tokenizers write them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.errors import InvalidInput
from collegium.data.transfer_noise import FEWEST, MOST, Tokens, images_of, noise_images, noise_texts

WORDS = np.arange(104, 1104, dtype=np.int32)


@pytest.mark.parametrize("shape", [(8, 8), (28, 20, 1), (16, 16, 3), (9, 9, 2)])
def test_images_fill_their_range(shape: tuple[int, ...]) -> None:
    x = noise_images(shape, 0, largest=255, count=200)
    assert x.shape == (200, *shape)
    assert np.array_equal(x, np.round(x)) and x.min() == 0 and x.max() == 255
    means = x.reshape(200, -1).mean(axis=1)
    assert means.min() < 64 and means.max() > 191  # dark ones and bright ones
    assert np.ptp(x.reshape(200, -1), axis=1).min() > 20  # none of one colour
    assert len(np.unique(x.reshape(200, -1), axis=0)) == 200


def test_images_are_smooth_with_edges() -> None:
    """Neighbouring pixels are much more alike than any two; white noise would make them equal."""
    x = noise_images((28, 28, 1), 1, largest=255, count=200)[..., 0]
    x = (x - x.mean((1, 2), keepdims=True)) / x.std((1, 2), keepdims=True)
    near = (x[:, :, 1:] * x[:, :, :-1]).mean()
    assert near > 0.7


def test_the_seed_decides(tmp_path: object) -> None:
    del tmp_path
    one, two, other = (noise_images((8, 8), seed, largest=16, count=5) for seed in (1, 1, 2))
    assert np.array_equal(one, two) and not np.array_equal(one, other)


def test_fewer_of_large_images() -> None:
    assert len(noise_images((4, 4), 0, largest=16)) == images_of((4, 4)) == MOST
    assert images_of((224, 224, 3)) == FEWEST
    assert noise_images((90, 70, 3), 0, largest=255, count=3).shape == (3, 90, 70, 3)


def test_no_other_shapes() -> None:
    with pytest.raises(InvalidInput, match="height, width"):
        noise_images((30,), 0, largest=1)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(3, 40),
    padding=st.sampled_from([-1, 0, 1]),
    framed=st.booleans(),
    seed=st.integers(0, 999),
)
def test_texts_have_the_tokenizers_form(count: int, padding: int, framed: bool, seed: int) -> None:
    """[CLS] words [SEP] padding, or words and padding; at least one word, and no word after it."""
    first, last = ((101,), (102,)) if framed else ((), ())
    tokens = Tokens(count=count, words=WORDS, padding=padding, first=first, last=last)
    for row in noise_texts(tokens, seed, count=20):
        real = row[row != padding]
        assert (row[len(real) :] == padding).all()
        inside = real[len(first) : len(real) - len(last)]
        assert len(inside) >= 1 and np.isin(inside, WORDS).all()
        assert tuple(real[: len(first)]) == first
        assert tuple(real[len(real) - len(last) :]) == last


def test_frequent_words_come_more_often_and_lengths_vary() -> None:
    tokens = Tokens(count=64, words=WORDS, padding=0)
    x = noise_texts(tokens, 3)
    lengths = (x != 0).sum(axis=1)
    assert 15 < np.median(lengths) < 25 and lengths.min() < 8 and lengths.max() == 64
    counts = np.bincount(x[x != 0] - 104, minlength=1000)
    assert counts[0] > 3 * counts[9] > 0 and counts[:10].sum() > counts[500:].sum()


@pytest.mark.parametrize("tokens", [
    Tokens(count=2, words=WORDS, padding=0, first=(101,), last=(102,)),
    Tokens(count=8, words=WORDS[:0], padding=0),
])  # fmt: skip
def test_no_room_for_words(tokens: Tokens) -> None:
    with pytest.raises(InvalidInput, match="made up"):
        noise_texts(tokens, 0)

"""float32, bf16 and int8 round trips: exact lengths, error bounds, non-finite stays non-finite."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from collegium.core.codec import BLOCK, codec, codec_names

SIZES = st.sampled_from([0, 1, 2, 7, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK + 1])
FINITE = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)
ANY = st.floats(width=32)


def vectors(elements: st.SearchStrategy[float]) -> st.SearchStrategy[np.ndarray]:
    """Vectors of the sizes around a block's edge, most of their values repeated."""
    return SIZES.flatmap(lambda size: arrays(np.float32, size, elements=elements))


@pytest.mark.parametrize("name", codec_names())
@given(vector=vectors(FINITE))
@settings(deadline=None, max_examples=60)
def test_finite_vectors_come_back_within_the_declared_error(name: str, vector: np.ndarray) -> None:
    chosen = codec(name)
    data = chosen.encode(vector)
    assert len(data) == chosen.size_bytes(len(vector))
    again = chosen.decode(data, len(vector))
    assert again.dtype == np.float32
    assert again.shape == vector.shape
    error = np.linalg.norm(again.astype(np.float64) - vector)
    norm = np.linalg.norm(vector.astype(np.float64))
    assert error <= chosen.relative_error * norm * (1 + 1e-6) + 1e-30 * len(vector)


@pytest.mark.parametrize("name", codec_names())
@given(vector=vectors(ANY))
@settings(deadline=None, max_examples=60)
def test_any_vector_encodes_repeatably_and_bad_values_stay_bad(
    name: str, vector: np.ndarray
) -> None:
    chosen = codec(name)
    data = chosen.encode(vector)
    assert len(data) == chosen.size_bytes(len(vector))
    assert chosen.encode(vector.copy()) == data
    again = chosen.decode(data, len(vector))
    if not np.isfinite(vector).all():
        assert not np.isfinite(again).all()


@pytest.mark.parametrize("name", codec_names())
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_any_bytes_of_the_right_length_decode_without_warning(
    name: str, data: st.DataObject
) -> None:
    """A peer chooses these bytes; warnings are errors here."""
    chosen = codec(name)
    size = data.draw(st.sampled_from([0, 1, 5, BLOCK, BLOCK + 1]))
    raw = data.draw(st.binary(min_size=16, max_size=64))
    wanted = chosen.size_bytes(size)
    vector = chosen.decode((raw * (wanted // 16 + 1))[:wanted], size)
    assert vector.shape == (size,)


def test_bf16_by_hand() -> None:
    """Nearest, ties to even: 1 + 2**-8 is a tie and goes down, 1 + 3 * 2**-8 goes up."""
    chosen = codec("bf16")
    vector = np.array([1, 1 + 2**-8, 1 + 3 * 2**-8, -2.5, 0, -0.0], dtype=np.float32)
    assert chosen.encode(vector).hex() == "803f803f823f20c000000080"
    np.testing.assert_array_equal(
        chosen.decode(chosen.encode(vector), 6), [1, 1, 1 + 2**-6, -2.5, 0, -0.0]
    )


def test_int8_by_hand() -> None:
    """The largest value of a block is exact and a zero block stays zero."""
    chosen = codec("int8")
    vector = np.zeros(BLOCK + 1, dtype=np.float32)
    vector[3] = -127.0
    again = chosen.decode(chosen.encode(vector), len(vector))
    assert again[3] == -127.0
    assert np.count_nonzero(again) == 1


def test_int8_is_unbiased() -> None:
    """Stochastic rounding: the mean of many copies of one value is that value."""
    vector = np.full(200_000, 0.3, dtype=np.float32)
    vector[::BLOCK] = 127.0
    again = codec("int8").decode(codec("int8").encode(vector), len(vector))
    rest = np.delete(again, np.arange(0, len(again), BLOCK))
    assert abs(rest.mean() - 0.3) < 4 * 0.46 / len(rest) ** 0.5


def test_unknown_codec() -> None:
    with pytest.raises(KeyError):
        codec("zip")

"""Large pictures: a strip at a time, whole diagonals at a time, and within bounds."""

import io
import struct
import sys
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from collegium.data.pixels import decoded
from collegium.edge.device.pictures import picture
from collegium.edge.device.png import PNG_MAGIC
from collegium.edge.device.png_lines import _by_diagonals


def png(width: int, height: int, depth: int, colour: int, packed: bytes, *extra: Any) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        code = zlib.crc32(content, zlib.crc32(kind))
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", code)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    half = len(packed) // 2
    parts = [(b"IDAT", packed[:half]), (b"IDAT", packed[half:])]
    chunks = [(b"IHDR", header), *extra, *parts, (b"IEND", b"")]
    return PNG_MAGIC + b"".join(chunk(*each) for each in chunks)


def lines(height: int, row: int, kinds: tuple[int, ...], seed: int = 0) -> bytes:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 256, (height, row + 1), dtype=np.uint8)
    table[:, 0] = rng.choice(kinds, height)
    return table.tobytes()


def predicted(kind: int, left: int, up: int, corner: int) -> int:
    """The PNG specification (third edition), 9.2 and 9.4, word by word."""
    if kind < 3:
        return (0, left, up)[kind]
    if kind == 3:
        return (left + up) // 2
    p = left + up - corner
    pa, pb, pc = abs(p - left), abs(p - up), abs(p - corner)
    return left if pa <= pb and pa <= pc else up if pb <= pc else corner


@settings(max_examples=80, deadline=None)
@given(
    height=st.integers(1, 9), width=st.integers(1, 9), step=st.integers(1, 4),
    seed=st.integers(0, 9999),
)  # fmt: skip
def test_diagonals_are_what_the_specification_says(
    height: int, width: int, step: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    filters = rng.integers(0, 5, height).astype(np.uint8)
    coded = rng.integers(0, 256, (height, width * step)).astype(np.uint8)
    above = rng.integers(0, 256, width * step).astype(np.uint8)
    whole = np.vstack([above, np.zeros_like(coded)]).astype(int)
    for r, kind in enumerate(filters.tolist(), start=1):
        for c in range(width * step):
            left, corner = (whole[r, c - step], whole[r - 1, c - step]) if c >= step else (0, 0)
            guess = predicted(kind, int(left), int(whole[r - 1, c]), int(corner))
            whole[r, c] = (int(coded[r - 1, c]) + guess) % 256
    np.testing.assert_array_equal(_by_diagonals(filters, coded, above, step), whole[1:])


@pytest.mark.parametrize(
    ("colour", "depth", "samples"), [(0, 8, 1), (2, 8, 3), (6, 16, 4), (0, 16, 1)]
)
def test_pictures_of_several_strips_are_as_at_a_site(colour: int, depth: int, samples: int) -> None:
    width, height = 400, 1500
    row = width * samples * depth // 8
    for kinds in ((0, 1, 2), (3, 4)):
        raw = png(width, height, depth, colour, zlib.compress(lines(height, row, kinds), 1))
        for shape in ((height, width, 3), (48, 32, 1)):
            np.testing.assert_array_equal(picture(raw, shape), decoded(raw, shape))


@pytest.mark.parametrize("turn", range(1, 9))
def test_without_pillow_strips_give_what_the_site_saw(
    turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(turn).integers(0, 256, (150, 90, 3)).astype(np.uint8)
    stream, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    for shape in ((28, 20, 3), (28, 20, 1), (200, 100, 3)):
        expected = decoded(stream.getvalue(), shape).astype(int)
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, "PIL", None)
            found = picture(stream.getvalue(), shape)
        assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("shape", [(28, 28, 1), (224, 224, 3)])
def test_a_photo_of_12_megapixels_takes_little_memory(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """36 MB of colours; what is held is strips of 2 MB, as bytes, as greys, and as sums."""
    monkeypatch.setitem(sys.modules, "PIL", None)
    raw = png(4000, 3000, 8, 2, zlib.compress((b"\1" + b"\1" * 12000) * 3000, 1))
    tracemalloc.start()
    try:
        found = picture(raw, shape)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.shape == shape and peak < 25e6


def test_a_small_file_of_a_huge_picture_is_refused_with_its_size() -> None:
    for width, height, depth, colour in ((10000, 10000, 16, 6), (9000, 5000, 8, 2)):
        raw = png(width, height, depth, colour, zlib.compress(b"\0" * 100))
        size = round(width * height * {6: 8, 2: 3}[colour] / 1e6)
        with pytest.raises(ValueError, match=f"{size} MB unpacked.*134 MB; save it smaller"):
            picture(raw, (28, 28, 1))
    with pytest.raises(ValueError, match="in a row: 2 MB"):
        picture(png(2_000_000, 2, 8, 0, zlib.compress(b"\0" * 100)), (28, 28, 1))


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_picture_that_ends_in_a_later_strip_is_damaged(kept: float) -> None:
    packed = zlib.compress(lines(1500, 2000, (0, 1)), 1)
    with pytest.raises(ValueError, match="damaged"):
        picture(png(2000, 1500, 8, 0, packed[: int(len(packed) * kept)]), (28, 28, 1))

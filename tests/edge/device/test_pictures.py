"""The device's own decoder gives the pixels that Collegium's reader of images gives."""

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from collegium.data.pixels import BadPicture, decoded
from collegium.edge.device.pictures import picture
from collegium.edge.device.png import MOST_PIXELS, PNG_MAGIC, exif_turn
from collegium.edge.device.resizing import resized_pixels

MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")
SIZE = (9, 13)


def drawn(mode: str, size: tuple[int, int] = SIZE, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, size).astype(np.uint16))
    if mode == "P":
        return Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).quantize(16)
    channels = {"L": 1, "1": 1, "LA": 2, "RGB": 3, "RGBA": 4}[mode]
    pixels = rng.integers(0, 256, (*size, channels)).astype(np.uint8)
    pixels.sort(axis=1)  # so that every filter is worth choosing somewhere
    if mode == "1":
        return Image.fromarray(pixels[:, :, 0]).convert("1")
    return Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels, mode=None)


def written(image: Image.Image, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", **options)
    return stream.getvalue()


def png(
    width: int, height: int, depth: int, colour: int, lines: bytes, *extra: tuple[bytes, bytes],
    interlaced: int = 0,
) -> bytes:  # fmt: skip
    """A PNG of these unpacked lines, each with its filter byte."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        code = zlib.crc32(content, zlib.crc32(kind))
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", code)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return PNG_MAGIC + b"".join(chunk(*each) for each in chunks)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_decoded_as_at_a_site(mode: str, channels: int) -> None:
    raw, shape = written(drawn(mode)), (*SIZE, channels)
    np.testing.assert_array_equal(picture(raw, shape), decoded(raw, shape))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("colour", [0, 2, 3, 4, 6])
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_depth_and_filter(colour: int, depth: int, data: st.DataObject) -> None:
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    if depth not in {0: (1, 2, 4, 8, 16), 3: (1, 2, 4, 8)}.get(colour, (8, 16)):
        return
    width, height = data.draw(st.integers(1, 11)), data.draw(st.integers(1, 5))
    row = (width * samples * depth + 7) // 8
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    lines = b"".join(bytes([kind]) + rng.bytes(row) for kind in kinds)
    palette = (b"PLTE", rng.bytes(3 * (1 << min(depth, 8))))
    raw = png(width, height, depth, colour, lines, *([palette] if colour == 3 else []))
    for channels in (1, 3):
        shape = (height, width, channels)
        np.testing.assert_array_equal(picture(raw, shape), decoded(raw, shape))


def test_a_number_beyond_the_palette_is_as_at_a_site() -> None:
    raw = png(4, 1, 8, 3, b"\0\0\1\2\xff", (b"PLTE", b"\x10\x20\x30\x40\x50\x60"))
    np.testing.assert_array_equal(picture(raw, (1, 4, 3)), decoded(raw, (1, 4, 3)))


@pytest.mark.parametrize("turn", range(10))
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_cameras_turn_is_undone(turn: int, order: str) -> None:
    exif = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8)
    exif += struct.pack(f"{order}HHHIHHI", 1, 0x0112, 3, 1, turn, 0, 0)
    lines = bytes([0, 1, 2, 3, 0, 4, 5, 6])
    raw = png(3, 2, 8, 0, lines, (b"eXIf", exif))
    shape = (3, 2, 1) if turn in (5, 6, 7, 8) else (2, 3, 1)
    np.testing.assert_array_equal(picture(raw, shape), decoded(raw, shape))


@given(st.binary(max_size=60))
def test_any_exif_has_a_turn(raw: bytes) -> None:
    assert 1 <= exif_turn(b"II*\0" + raw) <= 8


@pytest.mark.parametrize(
    "raw",
    [written(drawn("RGB"), exif=Image.Exif()), written(drawn("L"), compress_level=0)],
)
def test_interlaced_films_and_jpegs_go_to_pillow(raw: bytes) -> None:
    np.testing.assert_array_equal(picture(raw, (*SIZE, 1)), decoded(raw, (*SIZE, 1)))
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn("RGB").save(stream, "JPEG", exif=exif)
    turned = (SIZE[1], SIZE[0], 3)
    np.testing.assert_array_equal(
        picture(stream.getvalue(), turned), decoded(stream.getvalue(), turned)
    )
    film = io.BytesIO()
    drawn("L").save(film, "PNG", save_all=True, append_images=[drawn("L", seed=1)])
    np.testing.assert_array_equal(
        picture(film.getvalue(), (*SIZE, 1)), decoded(film.getvalue(), (*SIZE, 1))
    )


def test_without_pillow_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    interlaced = png(1, 1, 8, 0, b"\0\7", interlaced=1)
    for raw in (b"\xff\xd8\xff\xe0 and so on", interlaced):
        with pytest.raises(ValueError, match="save it as a plain PNG, or install pillow"):
            picture(raw, (1, 1, 1))
    assert picture(png(1, 1, 8, 0, b"\0\7"), (1, 1, 3)).tolist() == [[[7, 7, 7]]]


@settings(max_examples=60, deadline=None)
@given(
    old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    new=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    channels=st.sampled_from([1, 3]),
    seed=st.integers(0, 99),
)
def test_resizing_without_pillow_is_within_one_of_it(
    old: tuple[int, int], new: tuple[int, int], channels: int, seed: int
) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*old, channels)).astype(np.uint8)
    pixels = pixels[:, :, 0] if channels == 1 else pixels
    expected = Image.fromarray(pixels).resize((new[1], new[0]), Image.Resampling.BILINEAR)
    found = resized_pixels(pixels, *new)
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 1
    if old[0] == new[0] or old[1] == new[1]:  # else Pillow may take the rows first, and round
        np.testing.assert_array_equal(found, np.asarray(expected))


@pytest.mark.parametrize("mode", MODES)
def test_another_size_is_resized_as_at_a_site(mode: str) -> None:
    raw = written(drawn(mode, (70, 50)))
    for shape in ((28, 28, 1), (28, 28, 3), (96, 64, 3)):
        np.testing.assert_array_equal(picture(raw, shape), decoded(raw, shape))


def test_pgm_and_ppm() -> None:
    for mode, channels in (("L", 1), ("RGB", 3), ("I;16", 1)):
        stream = io.BytesIO()
        drawn(mode).save(stream, "PPM")
        raw, shape = written(drawn(mode)), (*SIZE, channels)
        np.testing.assert_array_equal(picture(stream.getvalue(), shape), decoded(raw, shape))
    commented = b"P5 # by hand\n# twice\n2 1\n255\n\1\2"
    assert picture(commented, (1, 2, 1)).ravel().tolist() == [1, 2]
    for damaged in (
        b"P5 2 1 255\n\1",
        b"P5 2 1 7\n\1\2",
        b"P5",
        b"P5 0 1 255\n",
        b"P6 1 1 255\n\1",
    ):
        with pytest.raises(ValueError, match="it "):
            picture(damaged, (1, 2, 1))


WHOLE = written(drawn("RGB"))


@settings(max_examples=300)
@given(place=st.integers(0, len(WHOLE) - 1), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_an_error_or_nothing(place: int, bit: int, cut: bool) -> None:
    raw = bytearray(WHOLE)
    raw[place] ^= 1 << bit
    try:
        found = picture(bytes(raw[:place] if cut else raw), (*SIZE, 3))
    except ValueError:
        return
    np.testing.assert_array_equal(found, decoded(WHOLE, (*SIZE, 3)))


@given(st.binary(max_size=200))
def test_any_bytes_are_an_error(raw: bytes) -> None:
    for start in (PNG_MAGIC, b"P5", b"", b"\xff\xd8\xff"):
        with pytest.raises(ValueError, match="it "):
            picture(start + raw, (2, 2, 1))


def test_bombs_are_refused_before_they_unpack() -> None:
    side = int(MOST_PIXELS**0.5) + 1
    huge = png(side, side, 8, 0, b"\0" * 10)
    swollen = png(4, 4, 8, 0, b"\0" * 50_000_000)  # 48 KB that say 50 MB
    for raw, why in ((huge, "too many pixels"), (png(4, 4, 8, 0, b"\0" * 7), "damaged")):
        with pytest.raises(ValueError, match=why):
            picture(raw, (4, 4, 1))
    with pytest.raises(BadPicture):
        decoded(huge, (4, 4, 1))
    assert not picture(swollen, (4, 4, 1)).any()  # what the header does not announce stays packed

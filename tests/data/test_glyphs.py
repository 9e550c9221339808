"""Synthetic digits: deterministic, on the digits' scale, held-out fonts kept apart."""

import numpy as np
import pytest

from collegium.core.errors import InvalidInput
from collegium.data import glyphs
from collegium.data.glyph_skeletons import (
    HELD_OUT_FONTS,
    PEN,
    POINTS,
    TRAIN_FONTS,
    _thin,  # pyright: ignore[reportPrivateUsage]
    font_skeletons,
    pen_skeletons,
)
from collegium.data.glyphs import glyph_set


def test_the_same_seed_gives_the_same_bytes() -> None:
    assert glyph_set(700, seed=3).digest == glyph_set(700, seed=3).digest
    assert glyph_set(700, seed=3).digest != glyph_set(700, seed=4).digest


def test_values_shapes_and_origin() -> None:
    public = glyph_set(600, seed=0)
    assert public.origin == "synthetic"
    assert public.y is not None
    assert (public.x.shape, public.x.dtype) == ((600, 8, 8), np.float32)
    assert (public.y.shape, public.y.dtype) == ((600,), np.int64)
    assert (public.x.min(), public.x.max()) == (0, 16)
    assert np.array_equal(public.x, np.rint(public.x))
    assert np.bincount(public.y, minlength=10).min() > 30


def test_blocks_count_the_ink() -> None:
    ink = np.zeros((1, 32, 32), dtype=np.float32)
    ink[0, :4, :4] = 1  # the first block full
    ink[0, 4:8, 28:] = 0.5  # the last block of the second row half full
    found = glyphs._blocks(ink, 8)  # pyright: ignore[reportPrivateUsage]
    expected = np.zeros((1, 8, 8))
    expected[0, 0, 0], expected[0, 1, 7] = 16, 8
    assert np.array_equal(found, expected)


def test_ink_lies_within_the_radius_of_a_point() -> None:
    points = np.full((1, POINTS, 2), 16.0, dtype=np.float32)
    points[0, :, 1] = 10.0  # (x, y) = (16, 10)
    ink = glyphs._ink(points, np.array([3.0], dtype=np.float32))  # pyright: ignore[reportPrivateUsage]
    rows, columns = np.nonzero(ink[0])
    distance = np.hypot(rows + 0.5 - 10.0, columns + 0.5 - 16.0)
    assert distance.max() < 5.5  # the radius, half a pixel, and many points in one place
    assert ink[0, 10, 16] == 1


@pytest.mark.parametrize("size", [4, 16, 32])
def test_other_sizes_have_the_same_scale(size: int) -> None:
    x = glyph_set(20, seed=1, size=size).x
    assert x.shape == (20, size, size)
    assert x.max() <= 16


@pytest.mark.parametrize(("count", "size"), [(5, 7), (5, 0), (-1, 8), (5, 64)])
def test_sizes_that_do_not_divide_are_refused(count: int, size: int) -> None:
    with pytest.raises(InvalidInput):
        glyph_set(count, seed=0, size=size)


def test_no_glyphs_are_no_error() -> None:
    assert len(glyph_set(0, seed=0)) == 0


def test_held_out_fonts_are_in_no_other_source() -> None:
    assert not set(TRAIN_FONTS) & set(HELD_OUT_FONTS)
    assert {way.digit for way in font_skeletons(HELD_OUT_FONTS)} == set(range(10))


def test_a_spline_passes_through_its_control_points() -> None:
    for way in pen_skeletons():
        assert way.spline.shape == (POINTS, len(way.control))
        assert np.allclose(way.spline.sum(axis=1), 1, atol=1e-5)
    first = pen_skeletons()[0]
    start = PEN[0][0][0][0]
    assert np.allclose((first.spline @ first.control)[0], start, atol=1e-6)


def test_thinning_a_bar_leaves_a_line() -> None:
    bar = np.zeros((1, 20, 20), dtype=bool)
    bar[0, 4:16, 8:13] = True
    thin = _thin(bar)[0]
    assert thin.sum(axis=1).max() == 1
    assert thin[8:12].sum() == 4


@pytest.mark.parametrize("source", ["pen", "fonts", "held-out-fonts", "mixed"])
def test_every_source_draws_every_digit(source: str) -> None:
    public = glyph_set(200, seed=2, source=source)  # pyright: ignore[reportArgumentType]
    assert public.y is not None
    assert set(public.y) == set(range(10))
    assert (public.x.sum(axis=(1, 2)) > 40).all()  # ink in every one

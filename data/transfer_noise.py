"""Records made up without any data: rows within bounds, random textures, random tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..core.errors import InvalidInput
from ..core.plan_model import ModelRef

ROWS = 4_000
MISSING = 0.1  # share of missing numbers, and of categories that are none of the plan's
MOST_VALUES, FEWEST, MOST = 2**25, 1_000, 4_000  # numbers of all images, and how many of them
TEXTS = 2_000
USUAL_TOKENS, SPREAD = 20.0, 0.7  # median length of a text, and the deviation of its logarithm
WAVES, SHAPES = 5, 5  # in one image, at most; shapes are blobs, bars and steps
FINE = 64  # pixels of the longer side in which textures are drawn
CHUNK = 128  # images drawn at once

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Which numbers a text model reads: what its tokenizer writes, and where.

    ``count`` numbers per text: ``first``, then words out of ``words`` (each (k,), frequent ones
    first where that is known), then ``last``, then ``padding``.
    """

    count: int
    words: NDArray[np.int32]
    padding: int
    first: tuple[int, ...] = ()
    last: tuple[int, ...] = ()


def bounds_rows(model: ModelRef, seed: int) -> NDArray[np.float32]:
    """Return (ROWS, columns) drawn uniformly within the plan's public bounds and categories.

    Where the model takes missing numbers or other categories, a tenth of them are NaN and -1.
    """
    rng = np.random.default_rng(seed)
    numbers = len(model.bounds)
    x = np.empty((ROWS, numbers + len(model.categories)), dtype=np.float32)
    if numbers:
        low, high = np.array(list(model.bounds.values()), dtype=np.float64).T
        x[:, :numbers] = rng.uniform(low, high, size=(ROWS, numbers))
    for place, known in enumerate(model.categories.values(), numbers):
        x[:, place] = rng.integers(0, len(known), size=ROWS)
    if model.missing != "refuse":
        x[:, :numbers][rng.random((ROWS, numbers)) < MISSING] = np.nan
    if model.unknown != "refuse":
        x[:, numbers:][rng.random((ROWS, len(model.categories))) < MISSING] = -1
    return x


def noise_images(
    shape: tuple[int, ...], seed: int, *, largest: float, count: int | None = None
) -> NDArray[np.float32]:
    """Return (count, height, width[, channels]) whole values from 0 to ``largest``.

    Each is a sum of waves of random directions and lengths, with blobs, bars and steps in it,
    of random brightness and contrast: textures with edges, and no picture of anything. Colours
    are mixtures of three such images. Raises ``InvalidInput`` for another number of axes.
    """
    if len(shape) not in (2, 3):
        raise InvalidInput(
            f"no images of shape {shape} can be made up",
            why="an image has height, width and perhaps channels",
            cure="write image = [height, width, channels] in [model]",
        )
    height, width, channels = (*shape, 1)[:3]
    count = images_of(shape) if count is None else count
    rng = np.random.default_rng(seed)
    found = np.empty((count, height, width, channels), dtype=np.float32)
    for start in range(0, count, CHUNK):
        part = found[start : start + CHUNK]
        part[...] = _images(part.shape, rng)
    return np.round(found.reshape(count, *shape) * largest)


def images_of(shape: tuple[int, ...]) -> int:
    """Return how many images of a shape are made up: fewer of large ones, for memory's sake."""
    return int(np.clip(MOST_VALUES // np.prod(shape), FEWEST, MOST))


def noise_texts(tokens: Tokens, seed: int, *, count: int = TEXTS) -> NDArray[np.int32]:
    """Return (count, tokens) random numbers, laid out as the model's tokenizer does it.

    Lengths are log-normal around ``USUAL_TOKENS``; a word of rank r among ``words`` is drawn
    with chance 1 / r, as in natural texts (Zipf 1949).
    """
    rng = np.random.default_rng(seed)
    frame = len(tokens.first) + len(tokens.last)
    room = tokens.count - frame
    if room < 1 or len(tokens.words) == 0:
        raise InvalidInput(
            f"no texts of {tokens.count} tokens can be made up",
            why="there is no room for words, or none is known",
            cure="write a larger number of tokens in [model.options]",
        )
    lengths = np.exp(rng.normal(np.log(USUAL_TOKENS), SPREAD, count)).round().astype(int)
    x = np.full((count, tokens.count), tokens.padding, dtype=np.int32)
    for row, length in zip(x, np.clip(lengths, 1, room), strict=True):
        ranks = np.exp(rng.random(length) * np.log(len(tokens.words))).astype(int) - 1
        row[: length + frame] = (*tokens.first, *tokens.words[ranks], *tokens.last)
    return x


def _images(shape: tuple[int, ...], rng: Generator) -> Floats:
    """Return images (n, height, width, channels) from 0 to 1."""
    count, height, width, channels = shape
    layers = 1 if channels == 1 else 3
    drawn = np.stack([_textures(count, height, width, rng) for _ in range(layers)], axis=-1)
    if channels > 1:
        colours = np.eye(3, channels) + rng.normal(0, 1, (count, 3, channels)) * rng.random()
        drawn = np.einsum("nhwl,nlc->nhwc", drawn, colours)
    low, high = (edge(drawn, axis=(1, 2, 3), keepdims=True) for edge in (np.min, np.max))
    unit = (drawn - low) / np.maximum(high - low, 1e-9)
    contrast, middle = _each(rng.uniform(0.3, 1.0, count)), _each(rng.random(count))
    reach = 2 * contrast * (0.5 + np.abs(middle - 0.5))
    return np.clip(middle[..., None] + (unit - 0.5) * reach[..., None], 0, 1)


def _textures(count: int, height: int, width: int, rng: Generator) -> Floats:
    """Return waves (n, height, width), longer ones stronger, with shapes and some grain in them."""
    fine = min(1.0, FINE / max(height, width))  # large images are drawn smaller, then enlarged
    rows, columns = (max(1, round(side * fine)) for side in (height, width))
    down, right = np.mgrid[0:rows, 0:columns] / max(rows, columns)
    found = _each(rng.normal(size=count)) * down + _each(rng.normal(size=count)) * right
    for wave in range(WAVES):
        length = np.exp(rng.uniform(np.log(0.1), np.log(2.0), count))  # of the image's side
        strength = np.sqrt(length) * (rng.integers(1, WAVES + 1, count) > wave)
        turn, phase = rng.uniform(0, 2 * np.pi, (2, count))
        along = _each(np.cos(turn)) * down + _each(np.sin(turn)) * right
        found += _each(strength) * np.sin(2 * np.pi * along / _each(length) + _each(phase))
    for place in range(SHAPES):
        strength = rng.normal(0, 2, count) * (rng.integers(0, SHAPES + 1, count) > place)
        found += _each(strength) * _shapes(count, down, right, rng)
    large = np.einsum("hr,nrc,wc->nhw", _enlarge(height, rows), found, _enlarge(width, columns))
    grain = _each(rng.uniform(0, 0.2, count))
    return large + rng.standard_normal(large.shape, dtype=np.float32) * grain


def _shapes(count: int, down: Floats, right: Floats, rng: Generator) -> Floats:
    """Return a blob, a bar or a step (n, height, width) from 0 to 1, somewhere in each image."""
    turn = _each(rng.uniform(0, 2 * np.pi, count))
    lower, further = down - _each(rng.random(count)), right - _each(rng.random(count))
    along = lower * np.cos(turn) + further * np.sin(turn)
    across = further * np.cos(turn) - lower * np.sin(turn)
    long, thick = (_each(rng.uniform(0.05, 0.5, count)) for _ in range(2))
    blob = (along / long) ** 2 + (across / thick) ** 2
    bar = np.maximum((along / long) ** 2, (across / (0.3 * thick)) ** 2)
    kind = _each(rng.integers(0, 3, count))
    distance = np.where(kind == 0, blob, np.where(kind == 1, bar, 1 + along / 0.05))
    return 1 / (1 + np.exp(np.clip(4 * (distance - 1), -50, 50)))


def _enlarge(size: int, drawn: int) -> Floats:
    """Return the (size, drawn) matrix of linear interpolation; the identity where both agree."""
    where = np.linspace(0, drawn - 1, size)
    return np.maximum(0, 1 - np.abs(where[:, None] - np.arange(drawn)))


def _each(values: NDArray[Any]) -> Floats:
    """Return (n, 1, 1): one value per image."""
    return np.asarray(values, dtype=np.float64)[:, None, None]

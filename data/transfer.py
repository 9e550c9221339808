"""Public and synthetic sets for the edge stage, by the name that a plan gives."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from ..core.digest import PREFIX
from ..core.errors import InvalidInput, MissingInput
from ..core.plan import Plan
from ..core.plan_model import ModelRef
from ..privacy.origin import require_releasable
from .glyphs import glyph_set
from .public import PublicSet
from .transfer_noise import ROWS, Tokens, bounds_rows, noise_images, noise_texts

GLYPHS = 12_000
GLYPH_MODEL, GLYPH_SHAPE = "collegium:glyph-cnn", (8, 8)
GLYPH_LARGEST, LARGEST_PIXEL = 16.0, 255.0
AUTO, PUBLIC = "auto", "public"
GLYPH_SET, BOUNDS, NOISE = "collegium:glyphs", "synthetic:bounds", "synthetic:noise"
Kind = Literal["table", "image", "text"]


def transfer_set(
    plan: Plan, *, seed: int, given: PublicSet | None = None, tokens: Tokens | None = None
) -> PublicSet:
    """Return the plan's transfer set, without labels: raw records as the sites' model reads them.

    ``auto`` is the ``given`` set where there is one; else glyphs for the model of small digits,
    rows within bounds for tables, and random textures or tokens for all others; the last two
    need no data at all (``data_free``). ``tokens`` says which numbers a text model reads;
    random texts cannot be made without it. Raises ``InvalidInput`` for a name that is not
    known and for a set that does not fit the model or has another digest, ``MissingInput`` when
    none was given where the plan asks for it, ``Refused`` for private records.
    """
    name = plan.edge.transfer
    if name == PUBLIC or name.startswith(PREFIX) or (name == AUTO and given is not None):
        return _given(plan, given, tokens)
    if name == AUTO:
        name = _automatic(plan.model)
    if name == GLYPH_SET:
        return replace(glyph_set(GLYPHS, seed=seed), y=None)
    if name in (BOUNDS, NOISE) and _kind(plan.model) == "table":
        return PublicSet(name=BOUNDS, origin="synthetic", x=bounds_rows(plan.model, seed))
    if name == NOISE:
        return _noise(plan.model, seed, tokens)
    raise InvalidInput(
        f"transfer set '{name}' is not known",
        why="the edge stage uses public or synthetic data only, from a named source",
        cure=f'use "{AUTO}", "{PUBLIC}", "{PREFIX}...", "{GLYPH_SET}", "{NOISE}", or '
        f'"{BOUNDS}" with [model.bounds]',
    )


def takes_given(plan: Plan) -> bool:
    """Return whether the plan's transfer set may come from outside."""
    name = plan.edge.transfer
    return name in (AUTO, PUBLIC) or name.startswith(PREFIX)


def known_size(plan: Plan, given: PublicSet | None) -> int | None:
    """Return how many records the plan's transfer set has, None where it has to be made first."""
    if takes_given(plan) and given is not None:
        return len(given)
    name = _automatic(plan.model) if plan.edge.transfer == AUTO else plan.edge.transfer
    if name == GLYPH_SET:
        return GLYPHS
    return ROWS if name == BOUNDS else None


def _automatic(model: ModelRef) -> str:
    if model.name == GLYPH_MODEL:
        return GLYPH_SET
    return BOUNDS if _kind(model) == "table" else NOISE


def _kind(model: ModelRef) -> Kind:
    if model.bounds or model.categories:
        return "table"
    return "image" if model.image or model.name == GLYPH_MODEL else "text"


def _noise(model: ModelRef, seed: int, tokens: Tokens | None) -> PublicSet:
    if _kind(model) == "image":
        if model.name == GLYPH_MODEL:
            x = noise_images(GLYPH_SHAPE, seed, largest=GLYPH_LARGEST).astype(np.float32)
        else:
            x = noise_images(model.image, seed, largest=LARGEST_PIXEL).astype(np.uint8)
        return PublicSet(name=NOISE, origin="synthetic", x=x)
    if tokens is None:
        raise InvalidInput(
            f"no records can be made up for '{model.name}'",
            why="it reads neither images nor tables, and nobody said which numbers its texts have",
            cure='give public records: [edge] transfer = "public"',
        )
    return PublicSet(name=NOISE, origin="synthetic", x=noise_texts(tokens, seed))


def _given(plan: Plan, given: PublicSet | None, tokens: Tokens | None) -> PublicSet:
    """Return the set that came from outside, its labels left out; raises as ``transfer_set``."""
    name = plan.edge.transfer
    if given is None:
        raise MissingInput(
            f"the plan's transfer set '{name}' is not here",
            why="[edge] transfer names public records that are not part of this package",
            cure="give them with `collegium publish --transfer FILE`; a simulation keeps some of "
            "its own with [simulation] public_share",
        )
    require_releasable(given.origin, f"the transfer set '{given.name}'")
    unlabelled = replace(given, y=None)
    if name.startswith(PREFIX) and name not in (unlabelled.digest, given.digest):
        raise InvalidInput(
            f"the transfer set '{given.name}' has the digest {unlabelled.digest}",
            why=f"the plan's [edge] transfer is {name}",
            cure="give the set that the consortium agreed on, or agree on a new plan",
        )
    if problem := _misfit(plan.model, given, tokens):
        raise InvalidInput(
            f"the transfer set '{given.name}' does not fit '{plan.model.name}'",
            why=problem,
            cure="give raw records as the sites' readers make them",
        )
    return unlabelled


def _misfit(model: ModelRef, given: PublicSet, tokens: Tokens | None) -> str:
    """Return why records cannot be those that the model reads, ''; no value is named."""
    kind, x = _kind(model), given.x
    shape: tuple[int, ...] | None = model.image or GLYPH_SHAPE
    if kind == "table":
        shape = (len(model.bounds) + len(model.categories),)
    elif kind == "text":
        shape = (tokens.count,) if tokens else None
    if shape is not None and x.shape[1:] != shape:
        return f"its records have the shape {x.shape[1:]}, the model reads {shape}"
    types = {"table": ("float32",), "image": ("uint8", "float32"), "text": ("int32",)}[kind]
    if x.dtype.name not in types:
        return f"its numbers are {x.dtype.name}, the model reads {' or '.join(types)}"
    wrong = _outside(model, x.reshape(len(x), -1))
    return f"{wrong} of {len(x)} records hold numbers that the model does not read" * bool(wrong)


def _outside(model: ModelRef, flat: np.ndarray) -> int:
    """Return how many records (n, values) hold a number that the model never reads."""
    kind = _kind(model)
    if kind == "table":
        numbers, places = flat[:, : len(model.bounds)], flat[:, len(model.bounds) :]
        wrong = np.isinf(numbers).any(axis=1)
        if model.missing == "refuse":
            wrong |= np.isnan(numbers).any(axis=1)
        least = 0 if model.unknown == "refuse" else -1
        sizes = np.array([len(known) for known in model.categories.values()])
        good = (places >= least) & (places < sizes) & (places == np.floor(places))
        return int((wrong | ~good.all(axis=1)).sum())
    largest = GLYPH_LARGEST if model.name == GLYPH_MODEL else LARGEST_PIXEL
    low, high = (-1.0, float(2**24)) if kind == "text" else (0.0, largest)
    return int((~((flat >= low) & (flat <= high))).any(axis=1).sum())

"""Public and synthetic sets for the edge stage, by the name that a plan gives."""

from __future__ import annotations

import numpy as np

from ..core.errors import InvalidInput
from ..core.plan import Plan
from .glyphs import glyph_set
from .public import PublicSet

GLYPHS = 12_000
ROWS = 4_000


def transfer_set(plan: Plan, *, seed: int) -> PublicSet:
    """Return the plan's transfer set; ``auto`` is glyphs for images, bounds for tables.

    Raises ``InvalidInput`` for a set that this version does not know.
    """
    name = plan.edge.transfer
    if name == "auto":
        name = "synthetic:bounds" if _is_table(plan) else "collegium:glyphs"
    if name == "collegium:glyphs":
        return glyph_set(GLYPHS, seed=seed)
    if name == "synthetic:bounds" and _is_table(plan):
        return _within_bounds(plan, seed)
    raise InvalidInput(
        f"transfer set '{name}' is not known",
        why="the edge stage uses public or synthetic data only, from a named source",
        cure="use collegium:glyphs, or synthetic:bounds with [model.bounds]",
    )


def _is_table(plan: Plan) -> bool:
    return bool(plan.model.bounds or plan.model.categories)


def _within_bounds(plan: Plan, seed: int) -> PublicSet:
    """Rows drawn uniformly within the plan's public bounds and categories: no record in them."""
    model, rng = plan.model, np.random.default_rng(seed)
    columns = np.empty((ROWS, len(model.bounds) + len(model.categories)), dtype=np.float32)
    if model.bounds:
        low, high = np.array(list(model.bounds.values()), dtype=np.float64).T
        columns[:, : len(low)] = rng.uniform(low, high, size=(ROWS, len(low)))
    for place, known in enumerate(model.categories.values(), len(model.bounds)):
        columns[:, place] = rng.integers(0, len(known), size=ROWS)
    return PublicSet(name="synthetic:bounds", origin="synthetic", x=columns)

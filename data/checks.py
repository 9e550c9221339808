"""What is wrong with a site's records, said before the first question is answered.

A record that cannot be trained on would raise in the very steps that sample it; the refusal
would tell the coordinator which steps those were.
"""

from __future__ import annotations

import numpy as np

from ..core.errors import Problem
from .site_data import SiteData


def check(data: SiteData, *, classes: int, public_records: int) -> list[Problem]:
    """Return every reason why these records cannot take part; none of them names a value.

    ``classes`` is the number of classes of the plan and ``public_records`` the size that the
    site has declared as its public upper bound.
    """
    problems: list[Problem] = []
    for part, x, y in (
        ("training", data.train_x, data.train_y),
        ("test", data.test_x, data.test_y),
    ):
        if len(x) != len(y):
            problems.append(
                Problem(
                    where=f"the {part} part",
                    what="inputs and labels differ in number",
                    why="each record needs one label",
                    cure="read the file again",
                )
            )
        if not np.issubdtype(y.dtype, np.integer) or np.any((y < 0) | (y >= classes)):
            problems.append(
                Problem(
                    where=f"the {part} part",
                    what="a label is not a class of the plan",
                    why=f"the plan has classes 0 to {classes - 1}",
                    cure="map the labels to the plan's [model] classes",
                )
            )
    if len(data.train_y) > public_records:
        problems.append(
            Problem(
                where="the training part",
                what="it holds more records than the site's public_records",
                why="that number is public, an upper bound, and what updates are checked against",
                cure="raise public_records in the plan, or take fewer records",
            )
        )
    return problems

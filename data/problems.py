"""Problems of a file, gathered row by row: the first row numbers and how many, never a value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..core.errors import Problem
from ..core.fields import shown

MOST = 8
"""Row numbers that are named; the others are counted."""


@dataclass(slots=True)
class Rows:
    """How many rows have one fault, and which the first are."""

    count: int = 0
    first: list[int] = field(default_factory=list[int])

    def add(self, rows: Iterable[int]) -> None:
        """Add row numbers as people count them."""
        for row in rows:
            self.count += 1
            if len(self.first) < MOST:
                self.first.append(row)

    def __str__(self) -> str:
        more = f" and {self.count - len(self.first)} more" if self.count > len(self.first) else ""
        named = ", ".join(map(str, self.first))
        return f"row{'s' if self.count != 1 else ''} {named}{more}"


class Faults:
    """Rows by column and kind of fault, told in the end as one problem each."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], Rows] = {}

    def add(self, column: str, kind: str, rows: Iterable[int], *, detail: str = "") -> None:
        """Add rows of a fault; ``column`` '' where it is the whole row's; ``kind`` of ``KINDS``.

        ``detail``: what is said in place of the kind's own words; each is a problem of its own.
        """
        rows = list(rows)
        if rows:
            self._found.setdefault((column, kind, detail), Rows()).add(rows)

    def __bool__(self) -> bool:
        return bool(self._found)

    def problems(self) -> list[Problem]:
        """Return one problem per column and kind, in the order in which they were met."""
        return [_problem(*fault, rows) for fault, rows in self._found.items()]


def row_words(rows: Sequence[int], first_row: int = 0) -> str:
    """Return 'row 4', or 'rows 4, 7, 9 and 12 more'; ``first_row`` is the number of row 0."""
    found = Rows()
    found.add(row + first_row for row in rows)
    return str(found)


def _problem(column: str, kind: str, detail: str, rows: Rows) -> Problem:
    what, why, cure = KINDS[kind]
    where = f"column {shown(column)}, {rows}" if column else str(rows)
    return Problem(where=where, what=detail or what, why=why, cure=cure)


KINDS: dict[str, tuple[str, str, str]] = {
    "number": (
        "is not a finite number",
        "Records are raw numbers; a text cannot be guessed here",
        "correct it; if it marks a missing value, list it in [data] missing; if it is a category, "
        "the plan must list it in [model.categories]",
    ),
    "header": (
        "repeats the name of the column",
        "A header row stands among the records",
        "remove that row, or, for a file without a header, name [data] columns",
    ),
    "missing": (
        "is missing",
        "A missing value cannot be guessed here",
        'fill it by a rule that you can defend, or write [data] incomplete = "drop" (or "keep", '
        "where the plan says what a missing value means)",
    ),
    "category": (
        "is not a category that the plan lists",
        'The plan says unknown = "refuse"',
        'correct it, leave the row out, or agree on a plan with that category or unknown = "other"',
    ),
    "class": (
        "the label is not a class of the plan",
        "Labels are the plan's class names, or 0 to k-1 in their order",
        "map it in [data.labels], correct it, or leave the row out",
    ),
    "label": (
        "the label is missing",
        "Each record needs one",
        'fill it in, or write [data] incomplete = "drop"',
    ),
    "zero-one": (
        "is neither 0 nor 1",
        "It says whether something is so",
        "write 0 or 1",
    ),
    "time": (
        "is not a time of 0 or more",
        "Survival times count from the entry of each record",
        "correct it, or leave the row out",
    ),
    "unit": (
        "names no unit",
        "All records of one patient are sampled and clipped together",
        "fill it in, or leave the row out",
    ),
    "text": (
        "holds no text",
        "Each record is one text",
        'fill it in, or write [data] incomplete = "drop"',
    ),
    "fields": (
        "holds another number of fields than there are columns",
        "Its values would land in other columns",
        "export the file again, with texts in quotes, and compare [data] columns and delimiter",
    ),
    "json": (
        "is not one JSON object",
        "A .jsonl file holds one object per line",
        "export it again",
    ),
}

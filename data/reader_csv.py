"""A table of numbers with a header row, read by hand: no type is guessed, nothing is filled in."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.errors import InvalidInput, Problem
from ..core.fields import nearest, shown
from .reader_labels import class_indices, rows_in_words
from .reader_table import Table

FIRST_ROW = 2
"""Row number of the first record, as a spreadsheet counts: the header is row 1."""


def read_csv(
    path: Path,
    *,
    label: str,
    unit: str | None,
    features: Sequence[str],
    classes: Sequence[str],
) -> Table:
    """Return the records of a UTF-8 csv file.

    ``features`` are the columns to read, in this order; without any, all but ``label`` and
    ``unit`` in the file's order. Raises ``InvalidInput`` with every problem; a row is named by
    its number, its content never.
    """
    header, rows = _rows(path)
    columns = list(features) or [name for name in header if name not in (label, unit)]
    wanted = [*columns, label, *([unit] if unit is not None else [])]
    if problems := _header_problems(header, wanted):
        raise InvalidInput(path.name, problems)
    ragged = [number for number, row in enumerate(rows) if len(row) != len(header)]
    if ragged:
        raise InvalidInput(path.name, [_ragged(ragged)])
    if not rows:
        raise InvalidInput(f"{path.name} holds no record", cure="export the records again")
    place = {name: number for number, name in enumerate(header)}
    x = np.empty((len(rows), len(columns)), dtype=np.float32)
    problems: list[Problem] = []
    for number, name in enumerate(columns):
        values = [_number(row[place[name]]) for row in rows]
        if wrong := [row for row, value in enumerate(values) if value is None]:
            problems.append(_not_a_number(name, wrong))
        else:
            x[:, number] = [value for value in values if value is not None]
    if unit is not None and (empty := [n for n, row in enumerate(rows) if not row[place[unit]]]):
        problems.append(_no_unit(unit, empty))
    if problems:
        raise InvalidInput(path.name, problems)
    labels = [row[place[label]].strip() for row in rows]
    return Table(
        x=x,
        y=class_indices(labels, classes, path, first_row=FIRST_ROW),
        units=None if unit is None else np.array([row[place[unit]].strip() for row in rows]),
    )


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            header = [name.strip() for name in next(reader, [])]
            return header, [row for row in reader if row]
    except UnicodeDecodeError:
        raise InvalidInput(
            f"{path.name} is not UTF-8 text", cure="export it again as csv in UTF-8"
        ) from None
    except csv.Error:
        raise InvalidInput(
            f"{path.name} is not a csv file",
            why="a quote is not closed, or a field is too long",
            cure="export it again as csv with commas",
        ) from None


def _header_problems(header: Sequence[str], wanted: Sequence[str]) -> list[Problem]:
    problems: list[Problem] = []
    for name in wanted:
        if name not in header:
            guess = nearest(name, header)
            cure = f"did you mean the column {shown(guess)}?" if guess else "name it in the header"
            problems.append(
                Problem(
                    where=f"column {shown(name)}",
                    what="is not in the header",
                    why="the plan's [model.bounds] and [data] name the columns that are read",
                    cure=cure,
                )
            )
        elif header.count(name) > 1:
            problems.append(
                Problem(
                    where=f"column {shown(name)}",
                    what="stands in the header twice",
                    why="nobody could tell which of the two is meant",
                    cure="rename or remove one of them",
                )
            )
    return problems


def _number(text: str) -> float | None:
    """Return a finite number, None for anything else: a missing value is for people to decide."""
    try:
        value = float(text)
    except ValueError:
        return None
    # beyond float32 it would become infinite
    return value if math.isfinite(value) and abs(value) < 3.4e38 and "_" not in text else None


def _ragged(rows: Sequence[int]) -> Problem:
    return Problem(
        where=rows_in_words(rows, FIRST_ROW),
        what="holds another number of fields than the header",
        why="its values would land in other columns",
        cure="export the file again, with texts in quotes",
    )


def _not_a_number(column: str, rows: Sequence[int]) -> Problem:
    return Problem(
        where=f"column {shown(column)}, {rows_in_words(rows, FIRST_ROW)}",
        what="is not a finite number",
        why="records are raw numbers; a missing value cannot be guessed here",
        cure="fill it by a rule that you can defend, or leave the row out",
    )


def _no_unit(column: str, rows: Sequence[int]) -> Problem:
    return Problem(
        where=f"column {shown(column)}, {rows_in_words(rows, FIRST_ROW)}",
        what="names no unit",
        why="all records of one patient are sampled and clipped together",
        cure="fill it in, or leave the row out",
    )

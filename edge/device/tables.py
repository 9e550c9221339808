"""Rows of a table to raw records, cell by cell as Collegium's readers at a site do it."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .errors import DeviceError, bad_input
from .forms import Form

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|"}
DELIMITER_OF = {".tsv": "tab", ".tab": "tab", ".psv": "pipe"}
LARGEST = 3.4e38
"""Beyond it a number would be infinite as float32."""
WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Records ``x`` (n, columns) float32, the row number of each, and notes on the file."""

    x: np.ndarray
    rows: tuple[int, ...]
    notes: tuple[str, ...] = ()


def csv_rows(text: str, name: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return (row number, cells) of every row that is not blank; the first row is row 1.

    Between spaces a cell cannot be empty: what is missing there needs a mark.
    """
    if "\0" in text:
        raise bad_input(f"{name} holds NUL bytes: it is no table of text")
    try:
        lines = io.StringIO(text, newline="")
        if delimiter == " ":  # as at a site: several are one, and quotes have no meaning
            return [(number, row) for number, line in enumerate(lines, 1) if (row := line.split())]
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        return [(number, row) for number, row in enumerate(reader, start=1) if row]
    except csv.Error:
        reason = f"{name} is no table of text: a quote is not closed, or a field is too long"
        raise bad_input(reason) from None


def table_rows(
    text: str, form: Form, name: str, *, delimiter: str = ",", marks: Sequence[str] = ()
) -> Rows:
    """Return the records of a table with a header, or of one with exactly these columns.

    Columns may stand in any order, and others beside them. An empty cell is missing, and so is
    one of ``marks``. Raises ``DeviceError`` that names file, row and column, never a value.
    """
    rows = csv_rows(text, name, delimiter)
    if not rows:
        raise bad_input(f"{name} holds no record")
    wanted = (*form.numbers, *form.categories)
    header = [cell.strip() for cell in rows[0][1]]
    notes: tuple[str, ...] = ()
    if any(column in header for column in wanted):
        places, notes = _places(header, wanted, name)
        width, rows = len(header), rows[1:]
    else:
        places, width = list(range(len(wanted))), len(wanted)
    if not rows:
        raise bad_input(f"{name} holds no record")
    reader = _Cells(form, name, frozenset(_plain_cell(mark) for mark in marks))
    x = np.empty((len(rows), len(wanted)), dtype=np.float32)
    for place, (number, row) in enumerate(rows):
        if len(row) != width:
            raise bad_input(f"{name}, row {number}: has {len(row)} fields, not {width}")
        cells = ((column, row[at]) for column, at in zip(wanted, places, strict=True))
        x[place] = [reader.value(column, cell, number) for column, cell in cells]
    return Rows(x=x, rows=tuple(number for number, _ in rows), notes=notes)


def mapped_rows(records: Sequence[Mapping[str, object]], form: Form) -> np.ndarray:
    """Return records given as {column: value} as (n, columns) float32; None is missing."""
    reader = _Cells(form, "records", frozenset())
    wanted = (*form.numbers, *form.categories)
    found = np.empty((len(records), len(wanted)), dtype=np.float32)
    for row, record in enumerate(records):
        if lost := [column for column in wanted if column not in record]:
            raise bad_input(f"records, row {row + 1}: column '{lost[0]}' is not there")
        found[row] = [reader.value(column, record[column], row + 1) for column in wanted]
    return found


def _places(
    header: Sequence[str], wanted: Sequence[str], name: str
) -> tuple[list[int], tuple[str, ...]]:
    for column in wanted:
        if column not in header:
            raise bad_input(f"{name}: column '{column}' is not in the header")
        if header.count(column) > 1:
            raise bad_input(f"{name}: column '{column}' stands in the header twice")
    extra = [column for column in header if column not in wanted]
    notes = (f"{name}: {len(extra)} columns are not the model's and were passed over",)
    return [header.index(column) for column in wanted], notes if extra else ()


class _Cells:
    """Cells to numbers and category indices, by the plan's words for what is not there."""

    def __init__(self, form: Form, name: str, marks: frozenset[str]) -> None:
        self._form, self._name, self._marks = form, name, marks
        self._codes = {column: _codes(known) for column, known in form.categories.items()}

    def value(self, column: str, cell: object, row: int) -> float:
        """Return a cell's number; NaN or -1 where it is missing and may be."""
        text = _cell_text(cell)
        missing = not text or text in self._marks
        if column in self._codes:
            return self._category(column, text, row, missing=missing)
        if missing:
            if self._form.missing == "refuse":
                raise self._bad(row, column, "is missing, and the model has no word for it")
            return math.nan
        number = _number_of(text)
        if number is None:
            raise self._bad(row, column, "is no number")
        return number

    def _category(self, column: str, text: str, row: int, *, missing: bool) -> float:
        if missing:
            if self._form.missing == "refuse" and self._form.unknown != "other":
                raise self._bad(row, column, "is missing, and the model has no word for it")
            return -1.0
        code = self._codes[column].get(text, -1)
        if code < 0 and self._form.unknown != "other":
            raise self._bad(row, column, "is no category that the model knows")
        return float(code)

    def _bad(self, row: int, column: str, what: str) -> DeviceError:
        return bad_input(f"{self._name}, row {row}, column '{column}': {what}")


def _cell_text(cell: object) -> str:
    """Return what a cell says as text, "" where it says nothing; true is "1", 1.0 is "1"."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, bool):
        return "1" if cell else "0"
    return _plain_cell(repr(float(cell)) if isinstance(cell, float) else str(cell))


def _plain_cell(text: str) -> str:
    """Return a cell's text without spaces around it, and a whole number without its ".0"."""
    text = text.strip()
    found = WHOLE_NUMBER.fullmatch(text)
    return found.group(1) if found else text


def _number_of(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < LARGEST and "_" not in text else None


def _codes(known: Sequence[str]) -> dict[str, int]:
    """Return each category's index, also under its name without ".0" where nothing else has it."""
    exact = {name: index for index, name in enumerate(known)}
    return {_plain_cell(name): index for name, index in exact.items()} | exact


def array_rows(text: str, shape: tuple[int, ...], name: str, delimiter: str) -> Rows:
    """Return rows of plain numbers, one record of ``shape`` each; a header is passed over."""
    rows = csv_rows(text, name, delimiter)
    if rows and all(_number_of(cell) is None for cell in rows[0][1]):
        rows = rows[1:]
    if not rows:
        raise bad_input(f"{name} holds no record")
    return Rows(
        x=np.array([_numbers(row, shape, f"{name}, row {number}") for number, row in rows]),
        rows=tuple(number for number, _ in rows),
    )


def _numbers(row: Sequence[str], shape: tuple[int, ...], where: str) -> np.ndarray:
    if len(row) != math.prod(shape):
        raise bad_input(f"{where}: has {len(row)} fields, not {math.prod(shape)}")
    values = [_number_of(cell.strip()) for cell in row]
    for place, value in enumerate(values, start=1):
        if value is None:
            raise bad_input(f"{where}, field {place}: is no number")
    return np.array(values, dtype=np.float32).reshape(shape)


def texts_of(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, text) of every line that is not blank."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.removesuffix("\r")

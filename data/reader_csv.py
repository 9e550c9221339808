"""Tables of text: a header row or the site's own column names, one record per line."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import numpy as np

from ..core.errors import InvalidInput
from ..core.site_data_section import DataSection
from .problems import MOST, Faults
from .table_columns import Chunk, Columns, once

CHUNK = 8192
"""Records that are converted at once."""
DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "pipe": "|"}
_BY_NAME = {".tsv": "tab", ".tab": "tab", ".psv": "pipe"}


class CsvSource:
    """A file of records, one per line, of fields between delimiters.

    Quotes may hold a delimiter or a line's end; a blank line is no record. Between spaces any
    number of them separates. ``last_takes_rest``: quotes are plain letters, and the last column
    holds whatever stands behind the delimiters before it. Raises ``InvalidInput`` for a file
    that is no such text; rows are counted as a spreadsheet does, the header is row 1.
    """

    def __init__(self, path: Path, section: DataSection, *, last_takes_rest: bool = False) -> None:
        self._path, self._section, self._rest = path, section, last_takes_rest
        self._delimiter = section.delimiter or _BY_NAME.get(path.suffix.lower(), "comma")
        with self._rows() as rows:
            self._own_names = bool(section.columns)
            first = next(rows, None)
            named = section.columns if first is None or self._own_names else first[1]
        if first is None:
            raise InvalidInput(f"{path.name} is empty", cure="export the records again")
        self._header = tuple(name.strip() for name in named)

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self._path.name

    @property
    def header(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return self._header

    def chunks(self, columns: Columns) -> Iterator[Chunk]:
        """Yield all records; raises ``InvalidInput`` for rows with more or fewer fields."""
        faults, width = Faults(), len(self._header)
        others: set[int] = set()
        with self._rows() as rows:
            if not self._own_names:
                next(rows, None)
            batch: list[list[str]] = []
            numbers: list[int] = []
            for number, row in rows:
                if len(row) != width:
                    others.add(len(row))
                    told = len(others) <= MOST
                    faults.add("", "fields", [number], detail=self._fields(row) if told else "")
                    continue
                batch.append(row)
                numbers.append(number)
                if len(batch) == CHUNK:
                    yield self._chunk(batch, numbers, columns)
                    batch, numbers = [], []
        if faults:
            raise InvalidInput(f"{self.name} ({width} columns)", faults.problems())
        if batch:
            yield self._chunk(batch, numbers, columns)

    def _fields(self, row: Sequence[str]) -> str:
        """Return how many fields a row has, and who says that it should have others."""
        names = "[data] columns names" if self._own_names else "the header names"
        return f"has {len(row)} field{'s' * (len(row) != 1)} where {names} {len(self._header)}"

    def _chunk(
        self, batch: Sequence[Sequence[str]], numbers: Sequence[int], columns: Columns
    ) -> Chunk:
        place = {name: number for number, name in enumerate(self._header)}
        fields = [[row[number] for row in batch] for number in range(len(self._header))]
        # names that site.toml gives are no part of the file
        names = [f"{n}" for n in range(len(fields))] if self._own_names else self._header
        return Chunk(
            columns={name: fields[place[name]] for name in columns.wanted},
            rows=np.array(numbers, dtype=np.int64),
            whole=once(names, fields),
        )

    @contextmanager
    def _rows(self) -> Generator[Iterator[tuple[int, list[str]]]]:
        """Yield (row number, fields) of every row that is not blank."""
        encoding = encoding_of(self._section)
        with self._path.open(encoding=encoding, newline="") as stream, text_errors(self._path):
            yield self._split(_no_nul(stream, self._path))

    def _split(self, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
        delimiter = DELIMITERS[self._delimiter]
        if delimiter == " ":
            rows: Iterator[list[str]] = (line.split() for line in lines)
        elif self._rest:
            most = len(self._section.columns) - 1 if self._section.columns else -1
            rows = (_cut(line, delimiter, most) for line in lines)
        else:
            rows = csv.reader(lines, delimiter=delimiter, strict=True)
        return ((number, row) for number, row in enumerate(rows, start=1) if row)


def encoding_of(section: DataSection) -> str:
    """Return the encoding of a text file, a mark of byte order allowed.

    Raises ``InvalidInput`` for a name that Python does not know.
    """
    try:
        "a".encode(section.encoding)  # refuses what is a codec, but none of texts
    except (LookupError, ValueError):
        raise InvalidInput(
            "[data] encoding is not known",
            why="it names how letters are written as bytes",
            cure='write "utf-8", "latin-1", "cp1252" or "utf-16"',
        ) from None
    name = codecs.lookup(section.encoding).name
    return "utf-8-sig" if name == "utf-8" else name


@contextmanager
def text_errors(path: Path) -> Generator[None]:
    """Turn what a damaged text raises into ``InvalidInput``, without a word of its content."""
    try:
        yield
    except UnicodeError:
        raise InvalidInput(
            f"{path.name} is not text in the encoding that [data] encoding names",
            why="some bytes stand for no letter in it",
            cure='export it again in UTF-8, or name its encoding, like encoding = "latin-1"',
        ) from None
    except csv.Error:
        raise InvalidInput(
            f"{path.name} is not a table of text",
            why="a quote is not closed, or a field is too long",
            cure="export it again, or compare [data] delimiter",
        ) from None


def _no_nul(stream: TextIO, path: Path) -> Iterator[str]:
    for line in stream:
        if "\0" in line:
            raise InvalidInput(
                f"{path.name} holds NUL bytes",
                why="it is no text in the encoding that [data] encoding names",
                cure='export it again as text, or name its encoding, like encoding = "utf-16"',
            )
        yield line


def _cut(line: str, delimiter: str, most: int) -> list[str]:
    line = line.rstrip("\r\n")
    return line.split(delimiter, most) if line else []

"""Texts with labels: JSON lines, or a table of which the last column is read to the line's end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..core.errors import InvalidInput
from ..core.site_data_section import DataSection
from .problems import Faults
from .reader_csv import CHUNK, CsvSource, encoding_of, text_errors
from .table_columns import Chunk, Columns, Source

_JSON = (".jsonl", ".ndjson")


def text_source(path: Path, section: DataSection) -> Source:
    """Return the records of a text file: .jsonl and .ndjson as JSON, all others as a table.

    Between tabs a quote is a letter and the last column takes the rest of the line (SMS and
    log files are written so); between other delimiters quotes hold a text together.
    """
    if path.suffix.lower() in _JSON:
        return JsonSource(path, section)
    tabs = section.delimiter == "tab" or (
        section.delimiter is None and path.suffix.lower() in (".tsv", ".tab")
    )
    return CsvSource(path, section, last_takes_rest=tabs)


class JsonSource:
    """One JSON object per line; a key that is absent is a missing value."""

    def __init__(self, path: Path, section: DataSection) -> None:
        self._path, self._section = path, section
        first = next(self._objects(Faults()), None)
        self._header = tuple(section.columns) or (() if first is None else tuple(first[1]))

    @property
    def name(self) -> str:
        """Return the file's name."""
        return self._path.name

    @property
    def header(self) -> tuple[str, ...]:
        """Return the keys of the first object, or [data] columns."""
        return self._header

    def chunks(self, columns: Columns) -> Iterator[Chunk]:
        """Yield all objects; raises ``InvalidInput`` for lines that are none."""
        faults = Faults()
        batch: list[dict[str, Any]] = []
        rows: list[int] = []
        for row, value in self._objects(faults):
            batch.append(value)
            rows.append(row)
            if len(batch) == CHUNK:
                yield _chunk(batch, rows, columns)
                batch, rows = [], []
        if faults:
            raise InvalidInput(self.name, faults.problems())
        if batch:
            yield _chunk(batch, rows, columns)

    def _objects(self, faults: Faults) -> Iterator[tuple[int, dict[str, Any]]]:
        encoding = encoding_of(self._section)
        with self._path.open(encoding=encoding) as stream, text_errors(self._path):
            for row, line in enumerate(stream, start=1):
                if not line.strip():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError):
                    value = None
                if isinstance(value, dict):
                    yield row, cast("dict[str, Any]", value)
                else:
                    faults.add("", "json", [row])


def _chunk(batch: list[dict[str, Any]], rows: list[int], columns: Columns) -> Chunk:
    return Chunk(
        columns={name: [value.get(name) for value in batch] for name in columns.wanted},
        rows=np.array(rows, dtype=np.int64),
        whole={name: [value.get(name) for value in batch] for name in dict.fromkeys(chain(*batch))},
    )

"""The one way from cells to records: every table, whatever file it comes from, is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput
from ..core.plan import Plan
from ..core.plan_model import ModelRef
from ..core.site_data_section import DataSection
from .cells import Column, Marks, numbers, plain
from .growing import SPILL_BYTES, Growing
from .identity import Identities, row_ids, text_ids
from .problems import Faults
from .reader_table import Table
from .table_columns import Chunk, Columns, Source, columns_of
from .targets import target_of

Mask = NDArray[np.bool_]


def read_table(
    source: Source,
    plan: Plan,
    section: DataSection,
    *,
    text: str | None = None,
    labels: bool = True,
    spill_bytes: int = SPILL_BYTES,
) -> Table:
    """Return a table's records: (n, numbers + categories) float32, or (n,) texts.

    ``text`` names the column that is the record itself. Raises ``InvalidInput`` with every
    problem of every column; a row is named by its number, its content never.
    """
    columns = columns_of(source, plan, section, text=text, labels=labels)
    builder = _Builder(columns, plan.model, section, spill_bytes)
    for chunk in source.chunks(columns):
        builder.add(chunk)
    return builder.finish(source.name)


class _Builder:
    """Records so far, and what was wrong with rows so far."""

    def __init__(
        self, columns: Columns, model: ModelRef, section: DataSection, spill_bytes: int
    ) -> None:
        self._columns, self._model, self._section = columns, model, section
        self._marks = Marks.of(section.missing)
        self._target = target_of(model, section, columns.labels, self._marks)
        width = len(columns.numbers) + len(columns.categories)
        self._x = Growing((width,), np.float32, spill_bytes=spill_bytes)
        self._texts: list[str] = []
        self._units: list[str] = []
        self._rows: list[NDArray[np.int64]] = []
        self._ids: list[Identities] = []
        self._left_out: list[Identities] = []
        self._codes = [_codes(known) for known in columns.categories.values()]
        self._faults = Faults()
        self._read = self._own = 0

    def add(self, chunk: Chunk) -> None:
        self._read += len(chunk.rows)
        own = self._filtered(chunk)
        cells, rows = _chosen(chunk, self._columns.wanted, own)
        self._own += len(rows)
        if not len(rows):
            return
        parts: list[NDArray[np.float32]] = []
        missing = np.zeros(len(rows), dtype=np.bool_)
        for name in self._columns.numbers:
            values, gaps = self._numbers(name, cells[name], rows)
            parts.append(values)
            missing |= gaps
        for (name, _), codes in zip(self._columns.categories.items(), self._codes, strict=True):
            values, gaps = self._category(name, cells[name], codes, rows)
            parts.append(values)
            missing |= gaps
        texts = self._read_texts(cells, rows)
        unlabelled = self._target.missing(cells)
        keep = self._kept(missing, unlabelled, texts, rows)
        self._add_ids(chunk, own, texts, keep)
        kept, kept_rows = _chosen(Chunk(columns=cells, rows=rows), self._columns.wanted, keep)
        self._target.add(kept, kept_rows, self._faults)
        self._add_units(kept, kept_rows)
        self._rows.append(kept_rows)
        if texts is not None:
            self._texts += [text for text, here in zip(texts, keep, strict=True) if here and text]
        elif parts:
            self._x.append(np.stack(parts, axis=1)[keep])

    def finish(self, source: str) -> Table:
        y = self._target.finish(self._faults)
        if self._faults:
            raise InvalidInput(source, self._faults.problems())
        x = self._x.finish() if self._columns.text is None else _objects(self._texts)
        if not len(x):
            raise _nothing(source, read=self._read, own=self._own)
        units = None if self._columns.unit is None else np.array(self._units)
        return Table(
            x=x,
            y=y,
            units=units,
            rows=np.concatenate(self._rows),
            ids=np.concatenate(self._ids) if self._ids else None,
            left_out=np.concatenate(self._left_out) if self._ids else None,
        )

    def _filtered(self, chunk: Chunk) -> Mask:
        own = np.ones(len(chunk.rows), dtype=np.bool_)
        for name, wanted in self._columns.rows.items():
            texts = (self._text(cell) for cell in chunk.columns[name])
            own &= np.fromiter((text in wanted for text in texts), np.bool_, len(own))
        return own

    def _text(self, cell: object) -> str:
        return Marks().text(cell) or ""

    def _numbers(
        self, name: str, cells: Column, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], Mask]:
        read = numbers(cells, self._marks, zero_is_missing=name in self._section.zero_is_missing)
        bad = np.flatnonzero(read.bad).tolist()
        again = {row for row in bad if isinstance(cells[row], str) and plain(cells[row]) == name}
        self._faults.add(name, "header", [int(rows[row]) for row in sorted(again)])
        self._faults.add(name, "number", [int(rows[row]) for row in bad if row not in again])
        gaps = np.isnan(read.values) & ~read.bad
        if self._refused(number=True):
            self._faults.add(name, "missing", rows[gaps].tolist())
        return read.values, gaps

    def _category(
        self, name: str, cells: Column, codes: Mapping[str, int], rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], Mask]:
        texts = [self._marks.text(cell) for cell in cells]
        values = np.array([codes.get(text or "", -1) for text in texts], dtype=np.float32)
        gaps = np.array([text is None for text in texts], dtype=np.bool_)
        if self._model.unknown == "refuse":
            unlisted = (values < 0) & ~gaps
            self._faults.add(name, "category", rows[unlisted].tolist())
        if self._refused(number=False):
            self._faults.add(name, "missing", rows[gaps].tolist())
        return values, gaps

    def _refused(self, *, number: bool) -> bool:
        """Whether a missing value is a fault: the file's owner and the plan must both allow it."""
        if self._section.incomplete != "keep":
            return self._section.incomplete == "refuse"
        other = not number and self._model.unknown == "other"
        return self._model.missing == "refuse" and not other

    def _read_texts(self, cells: Mapping[str, Column], rows: NDArray[np.int64]) -> list[str] | None:
        if self._columns.text is None:
            return None
        return [
            cell if isinstance(cell, str) and cell.strip() else ""
            for cell in cells[self._columns.text]
        ]

    def _kept(
        self, missing: Mask, unlabelled: Mask, texts: list[str] | None, rows: NDArray[np.int64]
    ) -> Mask:
        empty = np.zeros(len(rows), dtype=np.bool_)
        if texts is not None:
            empty = np.array([not text for text in texts], dtype=np.bool_)
        if self._section.incomplete == "drop":
            return ~(missing | unlabelled | empty)
        self._faults.add(self._columns.text or "", "text", rows[empty].tolist())
        column = self._columns.labels[0] if len(self._columns.labels) == 1 else ""
        self._faults.add(column, "label", rows[unlabelled].tolist())
        return ~(unlabelled | empty)

    def _add_ids(self, chunk: Chunk, own: Mask, texts: list[str] | None, keep: Mask) -> None:
        """Add what each of the site's own rows is, also of those that are left out."""
        if texts is not None:
            full = np.array([bool(text) for text in texts], dtype=np.bool_)
            ids, keep = text_ids(texts)[full], keep[full]
        elif chunk.whole:
            cells, rows = _chosen(replace(chunk, columns=chunk.whole), tuple(chunk.whole), own)
            ids = row_ids(cells, len(rows))
        else:
            return
        self._ids.append(ids[keep])
        self._left_out.append(ids[~keep])

    def _add_units(self, cells: Mapping[str, Column], rows: NDArray[np.int64]) -> None:
        unit = self._columns.unit
        if unit is None:
            return
        names = [self._text(cell) for cell in cells[unit]]
        nobody = [row for row, name in zip(rows.tolist(), names, strict=True) if not name]
        self._faults.add(unit, "unit", nobody)
        self._units += names


def _codes(known: Sequence[str]) -> dict[str, int]:
    """Return each category's index, also under its name without ".0" where nothing else has it."""
    exact = {name: index for index, name in enumerate(known)}
    return {plain(name): index for name, index in exact.items()} | exact


def _chosen(
    chunk: Chunk, names: Sequence[str], chosen: Mask
) -> tuple[dict[str, Column], NDArray[np.int64]]:
    if chosen.all():
        return {name: chunk.columns[name] for name in names}, chunk.rows
    places = np.flatnonzero(chosen)
    found: dict[str, Column] = {}
    for name in names:
        column = chunk.columns[name]
        found[name] = (
            column[places]
            if isinstance(column, np.ndarray)
            else [column[i] for i in places.tolist()]
        )
    return found, chunk.rows[places]


def _objects(texts: Sequence[str]) -> NDArray[np.object_]:
    found = np.empty(len(texts), dtype=np.object_)
    found[:] = texts
    return found


def _nothing(source: str, *, read: int, own: int) -> InvalidInput:
    if not read:
        return InvalidInput(f"{source} holds no record", cure="export the records again")
    if not own:
        return InvalidInput(
            f"{source}: none of its {read} rows is this site's",
            why="[data.rows] chooses by the values of a column",
            cure="compare [data.rows] with that column",
        )
    return InvalidInput(
        f"{source}: each of the {own} records has a missing value",
        why='[data] incomplete = "drop" leaves such records out',
        cure="look at [data] missing and zero_is_missing, and at the plan's features",
    )

"""Which columns of a table are read, and as what: the plan's features, the labels, the unit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput, Problem
from ..core.fields import nearest, shown
from ..core.plan import Plan
from ..core.plan_model import ModelRef
from ..core.site_data_section import DataSection
from .cells import Column, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some rows of a table: (n,) cells by column, and the (n,) row numbers as people count.

    ``whole`` holds every column of the file, in one form whatever the plan reads; without it
    rows have no identity.
    """

    columns: Mapping[str, Column]
    rows: NDArray[np.int64]
    whole: Mapping[str, Column] = field(default_factory=dict[str, Column])


class Source(Protocol):
    """A table that is read in chunks."""

    @property
    def name(self) -> str:
        """Return what people call the file; no folder, no credentials."""
        ...

    @property
    def header(self) -> tuple[str, ...]:
        """Return the names of the columns, in the file's order."""
        ...

    def chunks(self, columns: Columns) -> Iterator[Chunk]:
        """Yield all rows in order, with at least these columns."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """What is read: numbers, then categories with the plan's lists; labels; unit; filters.

    ``text`` is read instead of features where a record is a text, or a file that it names.
    """

    numbers: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    text: str | None = None
    labels: tuple[str, ...] = ()
    unit: str | None = None
    rows: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    @property
    def wanted(self) -> tuple[str, ...]:
        """Return every column that is read, once."""
        named = [*self.numbers, *self.categories, *self.labels, *self.rows]
        named += [name for name in (self.text, self.unit) if name is not None]
        return tuple(dict.fromkeys(named))


def once(names: Sequence[str], fields: Sequence[Column]) -> dict[str, Column]:
    """Return columns by name, but those whose name stands there twice: nobody could tell which."""
    count = Counter(names)
    return {name: cells for name, cells in zip(names, fields, strict=True) if count[name] == 1}


def label_columns(model: ModelRef, section: DataSection) -> tuple[str, ...]:
    """Return the columns that hold a record's label.

    Raises ``InvalidInput`` when survival has no event column.
    """
    if model.task == "multilabel":
        return model.classes
    if model.task != "survival":
        return (section.label,)
    if section.event is None:
        raise InvalidInput(
            "[data] event is missing",
            why="survival needs to know whether the event was seen, or the record was censored",
            cure="name the column that is 1 where it was seen, and 0 where not",
        )
    return (section.label, section.event)


def columns_of(
    source: Source,
    plan: Plan,
    section: DataSection,
    *,
    text: str | None = None,
    labels: bool = True,
) -> Columns:
    """Return what is read of a table with this header.

    ``text`` names the column that is the record itself; ``labels`` False: none is read. Raises
    ``InvalidInput`` with every column that is not there, or stands there twice.
    """
    model = plan.model
    given = label_columns(model, section) if labels else ()
    filters = {
        name: frozenset(plain(value) for value in values) for name, values in section.rows.items()
    }
    numbers, categories = (tuple(model.bounds), model.categories) if text is None else ((), {})
    if text is None and not numbers and not categories:
        others = {*given, section.label, section.event, section.unit, *filters}
        numbers = tuple(name for name in source.header if name not in others)
    found = Columns(
        numbers=numbers,
        categories=categories,
        text=text,
        labels=given,
        unit=section.unit,
        rows=filters,
    )
    own = tuple(name.strip() for name in section.columns)
    problems = _header_problems(source.header, found.wanted, own=bool(own) and own == source.header)
    problems += _section_problems(section, found)
    if problems:
        raise InvalidInput(source.name, problems)
    return found


def _header_problems(header: Sequence[str], wanted: Sequence[str], *, own: bool) -> list[Problem]:
    """Return what is not there, or twice; ``own``: the header is [data] columns."""
    problems: list[Problem] = []
    place = "among [data] columns" if own else "in the header"
    named = "[data] columns names {} columns" if own else "the file has {} columns"
    cure = (
        "write its name there, at the column's place in the file"
        if own
        else "name it in the header (or in [data] columns, for a file without one)"
    )
    # a file without a header begins with a record, of which nothing may be said
    is_header = own or any(name in header for name in wanted)
    for name in wanted:
        if name not in header:
            guess = nearest(name, header) if is_header else None
            there = named.format(len(header))
            problems.append(
                Problem(
                    where=f"column {shown(name)}",
                    what=f"is not {place}",
                    why=f"The plan's features and [data] name the columns that are read; {there}",
                    cure=f"did you mean the column {shown(guess)}?" if guess else cure,
                )
            )
        elif header.count(name) > 1:
            problems.append(
                Problem(
                    where=f"column {shown(name)}",
                    what=f"stands {place} twice",
                    why="Nobody could tell which of the two is meant",
                    cure="rename or remove one of them",
                )
            )
    return problems


def _section_problems(section: DataSection, columns: Columns) -> list[Problem]:
    return [
        Problem(
            where=f"[data] zero_is_missing {shown(name)}",
            what="is no column of numbers that the plan reads",
            why="A 0 there would mean nothing",
            cure="name columns of the plan's [model.bounds]",
        )
        for name in section.zero_is_missing
        if name not in columns.numbers
    ]

"""Read TOML tables into frozen dataclasses and collect every problem on the way.

A value that cannot be read leaves a *hole*: the dataclass is built without it, and a rule that
meets the hole says nothing. So one pass reports all that is wrong and nothing that follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from types import NoneType
from typing import Any, Final, TypeVar, cast, get_args, get_origin

from .errors import Problem
from .fields import (
    Key,
    choices_of,
    item_noun,
    item_table,
    keys_of,
    limit_fault,
    nearest,
    shown,
    table_heading,
    where_is,
)
from .forms import plugin_fault, text_fault

T = TypeVar("T")
HOLE: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One pass over one file; ``problems`` grows, ``hints`` are cures for misplaced keys."""

    hints: Mapping[str, str] = field(default_factory=dict[str, str])
    problems: list[Problem] = field(default_factory=list[Problem])

    def table(self, kind: type[T], table: Mapping[str, object], heading: str = "") -> T:
        """Return ``table`` as ``kind``, with holes where problems grew; never raises on input."""
        keys = keys_of(kind)
        meant = self._unknown(keys, table, heading)
        values: dict[str, object] = {}
        for key in keys.values():
            if key.name in table:
                values[key.name] = self._value(key, table[key.name], heading)
            elif key.default is not None:
                values[key.name] = key.default()
            elif key.name not in meant:
                self.problems.append(_missing(key, heading))
        return with_holes(kind, values)

    def _unknown(
        self, keys: Mapping[str, Key], table: Mapping[str, object], heading: str
    ) -> set[str]:
        """Report unknown keys; return the known ones that were probably meant."""
        absent = [name for name in keys if name not in table]
        meant: set[str] = set()
        for name, value in table.items():
            if name in keys:
                continue
            guess = nearest(name, absent) or nearest(name, keys)
            meant.add(guess)
            cure = self.hints.get(name) or f"remove it; known here: {', '.join(keys)}"
            if guess:
                cure = f"did you mean '{guess}'? Write that, or remove {where_is('', name)}"
            is_table = isinstance(value, dict)
            place = table_heading(heading, name) if is_table else where_is(heading, name)
            what = f"is not a known {'table' if is_table else 'key'}"
            why = "A name that nothing reads would be a setting that silently does nothing"
            self.problems.append(Problem(where=place, what=what, why=why, cure=cure))
        return meant

    def _value(self, key: Key, raw: object, heading: str) -> object:
        if is_dataclass(key.hint):
            return self._inner(key, raw, table_heading(heading, key.name))
        if (item := item_table(key.hint)) is not None:
            return self._tables(key, item, raw)
        if get_origin(key.hint) is dict:
            return self._mapping(key, raw, table_heading(heading, key.name))
        if get_origin(key.hint) is tuple:
            return self._list(key, raw, where_is(heading, key.name))
        return self._scalar(key, raw, where_is(heading, key.name))

    def _scalar(self, key: Key, raw: object, place: str) -> object:
        if key.hint in (int, float):
            return self._number(key, raw, place)
        wanted = bool if key.hint is bool else str
        if not isinstance(raw, wanted):
            return self._refuse(key, place, _not_a(key, raw))
        if isinstance(raw, str) and (fault := _text_fault(key, raw)):
            return self._refuse(key, place, f"{shown(raw)} {fault}", _nearest_choice(key, raw))
        return raw

    def _inner(self, key: Key, raw: object, place: str) -> object:
        if not isinstance(raw, dict):
            cure = f"write {place} on a line of its own and its keys below"
            return self._refuse(key, place, f"is {_noun(raw)}, not a table", cure)
        return self.table(cast("type[object]", key.hint), cast("dict[str, object]", raw), place)

    def _tables(self, key: Key, item: type, raw: object) -> object:
        place = f"[[{key.name}]]"
        cure = f"write {place} above the keys of each one"
        if not isinstance(raw, list):
            return self._refuse(key, place, f"is {_noun(raw)}, not a list of tables", cure)
        entries = cast("list[object]", raw)
        made: list[object] = []
        for number, entry in enumerate(entries, start=1):
            spot = f"{place} {number}"
            if isinstance(entry, dict):
                made.append(self.table(item, cast("dict[str, object]", entry), spot))
            else:
                self._refuse(key, spot, f"is {_noun(entry)}, not a table", cure)
        return tuple(made) if len(made) == len(entries) else HOLE

    def _list(self, key: Key, raw: object, place: str) -> object:
        if not isinstance(raw, list):
            return self._refuse(key, place, f"is {_noun(raw)}, not a list of {item_noun(key.hint)}")
        before = len(self.problems)
        item = replace(key, hint=get_args(key.hint)[0])
        made = [
            self._item(item, entry, f"{place} {number}")
            for number, entry in enumerate(cast("list[object]", raw), start=1)
        ]
        return tuple(made) if len(self.problems) == before else HOLE

    def _item(self, key: Key, entry: object, spot: str) -> object:
        if key.hint in (int, float):
            return self._number(key, entry, spot)
        if not isinstance(entry, str):
            cure = f'write it in quotes: "{shown(entry)}"'
            return self._refuse(key, spot, f"{shown(entry)} is {_noun(entry)}, not a text", cure)
        if fault := _text_fault(key, entry):
            return self._refuse(key, spot, f"{shown(entry)} {fault}", _nearest_choice(key, entry))
        return entry

    def _mapping(self, key: Key, raw: object, place: str) -> object:
        """Read ``"name" = value`` lines, in file order."""
        if not isinstance(raw, dict):
            return self._refuse(key, place, f"is {_noun(raw)}, not a table")
        before = len(self.problems)
        made: dict[str, object] = {}
        value_key = replace(key, hint=get_args(key.hint)[1])
        for name, value in cast("dict[object, object]", raw).items():
            spot = where_is(place, str(name))
            if not isinstance(name, str) or text_fault(name):
                self._refuse(key, spot, "is not a usable feature name")
            elif value_key.hint == tuple[float, float]:
                made[name] = self._bounds(key, value, spot)
            elif get_origin(value_key.hint) is tuple:
                made[name] = self._list(value_key, value, spot)
            else:
                made[name] = self._item(value_key, value, spot)
        return made if len(self.problems) == before else HOLE

    def _bounds(self, key: Key, pair: object, spot: str) -> object:
        if (ends := _pair(pair)) is None:
            return self._refuse(key, spot, f"{shown(pair)} is not a pair of finite numbers")
        if ends[0] >= ends[1]:
            what = f"the lowest value {ends[0]:.15g} is not below the highest {ends[1]:.15g}"
            return self._refuse(key, spot, what)
        return ends

    def _number(self, key: Key, raw: object, place: str) -> object:
        wanted = int if key.hint is int else (int, float)
        if isinstance(raw, bool) or not isinstance(raw, wanted):
            return self._refuse(key, place, _not_a(key, raw))
        if (number := _finite(raw)) is None:
            return self._refuse(key, place, f"{shown(raw)} is not a finite number")
        if fault := limit_fault(key.about, raw):
            return self._refuse(key, place, f"{shown(raw)} is {fault}")
        return raw if key.hint is int else number

    def _refuse(self, key: Key, place: str, what: str, cure: str = "") -> object:
        cure = cure or f"write {key.allowed()}"
        self.problems.append(Problem(where=place, what=what, why=key.meaning, cure=cure))
        return HOLE


def with_holes(kind: type[T], values: Mapping[str, object]) -> T:
    """Return a frozen slotted dataclass without running its checks; ``HOLE`` values stay unset."""
    made = object.__new__(kind)
    for name, value in values.items():
        if value is not HOLE:
            object.__setattr__(made, name, value)
    return made


def apply_rules(rules: Iterable[Callable[[T], Iterator[Problem]]], subject: T) -> list[Problem]:
    """Return what the rules find; a rule that meets a hole ends there."""
    found: list[Problem] = []
    for rule in rules:
        try:
            found.extend(rule(subject))
        except AttributeError as error:
            if not _is_hole(error):
                raise
    return found


def to_table(value: Any) -> Any:
    """Return a dataclass as the plain tables and lists of its file, without unset (None) keys."""
    if is_dataclass(value) and not isinstance(value, type):
        pairs = ((f.name, getattr(value, f.name)) for f in fields(value))
        return {name: to_table(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {name: to_table(item) for name, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [to_table(item) for item in cast("Sequence[Any]", value)]
    return value


def _missing(key: Key, heading: str) -> Problem:
    if is_dataclass(key.hint):
        place, cure = table_heading(heading, key.name), f"add the table [{key.name}]"
    elif item_table(key.hint) is not None:
        place, cure = f"[[{key.name}]]", f"add at least one table [[{key.name}]]"
    else:
        place, cure = where_is(heading, key.name), f"write {key.name} = {key.allowed()}"
    return Problem(where=place, what="is missing", why=key.meaning, cure=cure)


def _text_fault(key: Key, value: str) -> str:
    if fault := text_fault(value):
        return fault
    choices = choices_of(key.hint, key.about)
    if choices and value not in choices:
        named = key.about.plugins and not plugin_fault(value)
        return "" if named else "is not a known value"
    return key.about.fault(value) if key.about.fault else ""


def _nearest_choice(key: Key, value: str) -> str:
    guess = nearest(value, choices_of(key.hint, key.about))
    return f'did you mean "{guess}"? Write {key.allowed()}' if guess else ""


def _not_a(key: Key, raw: object) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    return f"{shown(raw)} is {_noun(raw)}, not {names.get(key.hint, 'a text')}"


def _noun(raw: object) -> str:
    nouns: dict[type, str] = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "a table",
        NoneType: "nothing",
    }
    return nouns.get(type(raw), f"a {type(raw).__name__}")


def _finite(raw: object) -> float | None:
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        return None
    try:
        number = float(raw)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _pair(raw: object) -> tuple[float, float] | None:
    ends = [_finite(end) for end in cast("list[object]", raw)] if isinstance(raw, list) else []
    low, high = ends if len(ends) == 2 else (None, None)
    return None if low is None or high is None else (low, high)


def _is_hole(error: AttributeError) -> bool:
    """Tell an unset declared field from a mistake in a rule: only the first is a known key."""
    return is_dataclass(error.obj) and error.name in keys_of(type(error.obj))

"""How a dataclass declares the keys of a TOML table: type, limits, meaning, and their wording."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from difflib import get_close_matches
from functools import cache, partial
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a key means and which values it takes.

    ``text``: one sentence with unit and effect. ``low``/``high`` are allowed, ``above``/``below``
    are not. ``fault`` returns why a text is refused ('' when it is not); ``form`` says how it is
    written; ``choices`` lists all texts of a closed set, to which
    ``plugins`` adds ``plugin:NAME``.
    """

    text: str
    low: float | None = None
    above: float | None = None
    high: float | None = None
    below: float | None = None
    choices: tuple[str, ...] = ()
    plugins: bool = False
    fault: Callable[[str], str] | None = None
    form: str = ""


def about(text: str, **limits: Any) -> Mapping[str, About]:
    """Return dataclass field metadata that describes one key."""
    return MappingProxyType({"about": About(text=text, **limits)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key of a table as its dataclass declares it; ``hint`` is the type without ``| None``."""

    name: str
    hint: Any
    about: About
    default: Callable[[], object] | None

    @property
    def required(self) -> bool:
        """Return whether the file must hold this key."""
        return self.default is None

    @property
    def meaning(self) -> str:
        """Return what the key is for, in one sentence without its full stop."""
        inner = key_table(self.hint)
        first = (inner.__doc__ or "").partition("\n")[0] if inner else ""
        return self.about.text or first.rstrip(".")

    def allowed(self) -> str:
        """Return in words which values the key takes."""
        return allowed_values(self.hint, self.about)


@cache
def keys_of(kind: type) -> Mapping[str, Key]:
    """Return the keys of a dataclass in file order, as declared by its fields and ``about``."""
    hints = get_type_hints(kind)
    return MappingProxyType({f.name: _key(f, hints[f.name]) for f in fields(kind)})


def homes_of(kind: type) -> Mapping[str, str]:
    """Return for each key inside a file's tables the advice to write it there."""
    homes: dict[str, list[str]] = {}
    for table in keys_of(kind).values():
        inner = key_table(table.hint)
        heading = f"[[{table.name}]]" if item_table(table.hint) else f"[{table.name}]"
        for name in keys_of(inner) if inner else ():
            homes.setdefault(name, []).append(heading)
    return {name: f"it belongs in {' or '.join(found)}" for name, found in homes.items()}


def key_table(hint: Any) -> type | None:
    """Return the dataclass that a key's table or tables become, None for a plain value."""
    return item_table(hint) or (cast("type", hint) if is_dataclass(hint) else None)


def item_table(hint: Any) -> type | None:
    """Return the dataclass inside ``tuple[Dataclass, ...]``, or None for any other type."""
    if get_origin(hint) is tuple and is_dataclass(get_args(hint)[0]):
        return cast("type", get_args(hint)[0])
    return None


def choices_of(hint: Any, note: About) -> tuple[str, ...]:
    """Return the texts of a closed set, or nothing where any text may stand."""
    return note.choices or (get_args(hint) if get_origin(hint) is Literal else ())


def allowed_values(hint: Any, note: About) -> str:
    """Return in words which values a type with these limits takes."""
    if choices := choices_of(hint, note):
        start = "a list of " if get_origin(hint) is tuple else "one of "
        known = [*choices, "plugin:NAME"] if note.plugins else choices
        return start + ", ".join(f'"{choice}"' for choice in known)
    if hint in (int, float):
        noun = "a whole number" if hint is int else "a number"
        return " ".join([noun, *_limits_in_words(note)])
    if hint is bool:
        return "true or false"
    plain = {str: "a text", tuple: f"a list of {item_noun(hint)}"}.get(
        get_origin(hint) or hint, "a table"
    )
    return note.form or plain


def item_noun(hint: Any) -> str:
    """Return what a list of this type holds, in the plural."""
    item = get_args(hint)[0] if get_origin(hint) is tuple else str
    return "whole numbers" if item is int else "numbers" if item is float else "texts"


def limit_fault(note: About, value: float) -> str:
    """Return which limit a number breaks, or '' when it breaks none."""
    if note.low is not None and value < note.low:
        return f"below {_number(note.low)}"
    if note.above is not None and value <= note.above:
        return f"not above {_number(note.above)}"
    if note.high is not None and value > note.high:
        return f"above {_number(note.high)}"
    if note.below is not None and value >= note.below:
        return f"not below {_number(note.below)}"
    return ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the known word that looks most like ``word``, or '' when none does."""
    close = get_close_matches(word[:200].lower(), list(known), n=1, cutoff=0.6)
    return close[0] if close else ""


def shown(value: object) -> str:
    """Return a value as it would stand in a TOML file, shortened and safe to print."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=not value.isprintable())
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int):
        text = str(value) if abs(value) < 10**30 else f"{'-' * (value < 0)}10^30 or more"
    else:
        text = str(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 48 else text[:45] + "..."


def where_is(heading: str, name: str) -> str:
    """Return a key's place as the user finds it: ``[rounds] count``."""
    plain = name.isprintable() and 0 < len(name) <= 60
    return f"{heading} {name if plain else shown(name)}".strip()


def table_heading(heading: str, name: str) -> str:
    """Return the heading of a table inside another: ``[model.bounds]``."""
    inner = where_is("", name)
    return f"[{heading.strip('[]')}.{inner}]" if heading else f"[{inner}]"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.15g}"


def _limits_in_words(note: About) -> Iterator[str]:
    if note.low is not None and note.high is not None:
        yield f"from {_number(note.low)} to {_number(note.high)}"
        return
    ends = [("of at least", note.low), ("above", note.above)]
    ends += [("at most", note.high), ("below", note.below)]
    if words := " and ".join(f"{word} {_number(end)}" for word, end in ends if end is not None):
        yield words


def _key(declared: Any, hint: Any) -> Key:
    options = get_args(hint) if get_origin(hint) in (Union, UnionType) else ()
    bare = [option for option in options if option is not NoneType]
    default = None if declared.default_factory is MISSING else declared.default_factory
    if declared.default is not MISSING:
        default = partial(_same, declared.default)
    return Key(
        name=declared.name,
        hint=bare[0] if bare else hint,
        about=declared.metadata.get("about", About(text="")),
        default=default,
    )


def _same(value: object) -> object:
    return value

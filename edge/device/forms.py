"""What a raw record looks like: input.json, checked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .errors import DeviceError, bad_file
from .names import FORM_FILE

KINDS = ("array", "image", "table", "text")
DTYPES = ("float32", "uint8", "int32")
FORM_SCHEMA = 1
MOST_VALUES = 1 << 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """One raw record: its kind, dtype and shape, and how it is read from a file.

    ``numbers`` and ``categories`` (each with its list) are the columns of a table, in this
    order; ``missing`` and ``unknown`` are the plan's words; ``tokenizer`` describes a text's.
    """

    kind: str
    dtype: str
    shape: tuple[int, ...]
    numbers: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: MappingProxyType[str, tuple[str, ...]]({})
    )
    missing: str = "refuse"
    unknown: str = "refuse"
    tokenizer: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType[str, Any]({}))


def parse_form(raw: bytes) -> Form:
    """Return what a signed input.json says; raises ``DeviceError`` BAD FILE or RUNTIME."""
    try:
        told = json.loads(raw)
        schema = told["schema"]
        if schema != FORM_SCHEMA:
            raise DeviceError(
                "RUNTIME",
                f"{FORM_FILE} is of schema {schema!r:.20}, this program reads {FORM_SCHEMA}: "
                "fetch a newer device.py",
            )
        shape = tuple(told["shape"])
        if (
            told["kind"] not in KINDS
            or told["dtype"] not in DTYPES
            or not all(type(size) is int and size > 0 for size in shape)
            or math.prod(shape) > MOST_VALUES
        ):
            raise ValueError("kind, dtype or shape")
        return _OF_KIND[told["kind"]](told, shape)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise bad_file(FORM_FILE, "does not say what a record looks like") from None


def _array(told: dict[str, Any], shape: tuple[int, ...]) -> Form:
    return Form(kind=told["kind"], dtype=told["dtype"], shape=shape)


def _image(told: dict[str, Any], shape: tuple[int, ...]) -> Form:
    if len(shape) != 3:
        raise ValueError("height, width, channels")
    return _array(told, shape)


def _table(told: dict[str, Any], shape: tuple[int, ...]) -> Form:
    columns = [(str(column["name"]), column.get("categories")) for column in told["columns"]]
    numbers = tuple(name for name, known in columns if known is None)
    categories = {name: tuple(map(str, known)) for name, known in columns if known is not None}
    if (
        (*numbers, *categories) != tuple(name for name, _ in columns)
        or shape != (len(columns),)
        or told["missing"] not in ("refuse", "mean", "flag")
        or told["unknown"] not in ("refuse", "other")
        or any(isinstance(known, str) for _, known in columns)
    ):
        raise ValueError("columns")
    return Form(
        kind="table",
        dtype=told["dtype"],
        shape=shape,
        numbers=numbers,
        categories=MappingProxyType(categories),
        missing=told["missing"],
        unknown=told["unknown"],
    )


def _text(told: dict[str, Any], shape: tuple[int, ...]) -> Form:
    tokenizer = dict(told["tokenizer"])
    if shape != (tokenizer["tokens"],):
        raise ValueError("tokens")
    return Form(
        kind="text", dtype=told["dtype"], shape=shape, tokenizer=MappingProxyType(tokenizer)
    )


_OF_KIND = MappingProxyType({"array": _array, "image": _image, "table": _table, "text": _text})

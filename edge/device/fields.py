"""Fields of a signed index and of a home's own files: of the right type, or refused by name."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

FULL_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def text_in(value: object, name: str) -> str:
    """Return a text; raises ``ValueError`` with the field's ``name``, as all here do."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    return value


def texts_in(value: object, name: str) -> tuple[str, ...]:
    """Return a list of texts as a tuple."""
    return tuple(text_in(each, name) for each in rows_in(value, name))


def rows_in(value: object, name: str) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise ValueError(f"{name} is not a list")
    return list[Any](value)


def table_in(value: object, name: str) -> dict[str, Any]:
    """Return a table; its keys are texts, because JSON and TOML have no others."""
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not a table")
    return dict[str, Any](value)


def truth_in(value: object, name: str) -> bool:
    """Return true or false; "false" is neither."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is neither true nor false")
    return value


def count_in(value: object, name: str) -> int:
    """Return a whole number from 0 to below 2**63."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"{name} is not a count")
    return value


def digest_in(value: object, name: str) -> str:
    """Return ``sha256:`` and 64 hex digits."""
    if not FULL_DIGEST.fullmatch(text_in(value, name)):
        raise ValueError(f"{name} is not a digest")
    return str(value)


def moment_in(value: object, name: str) -> datetime:
    """Return an ISO 8601 time with a zone, in UTC."""
    try:
        moment = datetime.fromisoformat(text_in(value, name))
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):  # the year 10000 of another zone
        pass
    raise ValueError(f"{name} is not a time with a zone")

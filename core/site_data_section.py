"""``[data]`` of site.toml: where the records are, how they are read, whose they are."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Literal

from . import forms
from .errors import MissingInput
from .fields import about

READERS = ("csv", "parquet", "images", "npz", "text", "dicom", "sql")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSection:
    """Where the records are and how they are read; the budget belongs to ``asset``."""

    asset: str = field(
        metadata=about(
            "Name of the data asset; its budget belongs to it, whatever file or split holds it",
            fault=forms.name_fault,
            form='a name of a-z, 0-9 and inner hyphens, like "cardiology-2019-2025"',
        )
    )
    reader: str = field(metadata=about("How the records are read", choices=READERS, plugins=True))
    path: str = field(
        metadata=about(
            "File or folder of the records, relative to this file (reader sql: or a URL); a "
            "leading $NAME or ${NAME} is read from the environment"
        )
    )
    label: str = field(
        metadata=about(
            "Column that holds the label; for survival the time; for masks their folder; not "
            "read where the plan's classes are columns (multilabel)"
        )
    )
    event: str | None = field(
        default=None,
        metadata=about("Survival: column that is 1 where the event was seen, 0 where censored"),
    )
    unit: str | None = field(
        default=None,
        metadata=about("Column that says to which privacy unit (patient) a record belongs"),
    )
    test_share: float = field(
        default=0.2, metadata=about("Share of the records held out for testing", low=0, below=1)
    )
    test_rows: tuple[int, ...] = field(
        default=(),
        metadata=about(
            "Numbers of the rows that are held out for testing, in place of test_share, as a "
            "spreadsheet counts: a header row is row 1, and rows that are left out count, too",
            low=1,
            high=10**9,
        ),
    )
    test_path: str | None = field(
        default=None,
        metadata=about("File or folder of the test records, where they have their own"),
    )
    columns: tuple[str, ...] = field(
        default=(),
        metadata=about("Names of the columns, for a file without a header row"),
    )
    delimiter: str | None = field(
        default=None,
        metadata=about(
            "What separates two fields: comma, semicolon, tab, space or pipe; default by the "
            "file's name",
            choices=("comma", "semicolon", "tab", "space", "pipe"),
        ),
    )
    encoding: str = field(
        default="utf-8", metadata=about("Encoding of text files", form='a name, like "utf-8"')
    )
    text: str | None = field(
        default=None,
        metadata=about('Column that holds the text (reader text); "text" if not named'),
    )
    missing: tuple[str, ...] = field(
        default=(),
        metadata=about(
            'Marks that stand for a missing value, like "?"; an empty field always does'
        ),
    )
    incomplete: Literal["refuse", "drop", "keep"] = field(
        default="refuse",
        metadata=about(
            "What becomes of a record with a missing value: all are refused, it is left out, or "
            "it is kept for a model whose plan says what a missing value means"
        ),
    )
    zero_is_missing: tuple[str, ...] = field(
        default=(), metadata=about("Columns in which 0 means: not measured")
    )
    rows: dict[str, tuple[str, ...]] = field(
        default_factory=dict[str, tuple[str, ...]],
        metadata=about(
            "Only rows whose column holds one of these texts are this site's",
            form='"column" = ["value", ...]',
        ),
    )
    labels: dict[str, str] = field(
        default_factory=dict[str, str],
        metadata=about(
            "What the file's labels are called in the plan",
            form='"label in the file" = "class of the plan"',
        ),
    )
    query: str | None = field(
        default=None, metadata=about("Query that gives the records (reader sql)")
    )


def with_environment(path: str) -> str:
    """Return a path whose leading ``$NAME`` is read from the environment.

    Raises ``MissingInput`` when that variable is not set. Nothing else in a path is special.
    """
    found = _VARIABLE.match(path)
    if found is None:
        return path
    name = found.group(1) or found.group(2)
    value = os.environ.get(name)
    if not value:
        raise MissingInput(
            f"the environment variable {name} is not set",
            why=f"[data] path is {path}",
            cure=f"export {name}=FOLDER, where the records are, or write the path itself",
        )
    return value + path[found.end() :]

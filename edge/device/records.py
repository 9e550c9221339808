"""Raw records as arrays: of the shape and the values that a form allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np

from .errors import bad_input
from .forms import Form
from .tables import mapped_rows
from .texts import Tokenizer

Given = np.ndarray | Sequence[str] | Sequence[Mapping[str, object]]
"""Raw records: an array; texts; or rows of a table as {column: value}."""


def as_records(given: Given, form: Form, tokenizer: Tokenizer | None, where: str) -> np.ndarray:
    """Return (n, ...) raw records, n at least 1; ``where`` names them in errors.

    Raises ``DeviceError`` BAD INPUT for another shape, and for values that no record has.
    """
    if isinstance(given, np.ndarray):
        return _checked(given, form, where)
    if not given:
        raise bad_input(f"{where}: there is no record")
    if tokenizer is not None and all(isinstance(each, str) for each in given):
        return tokenized(cast("Sequence[str]", given), tokenizer, where)
    if form.kind == "table" and all(isinstance(each, Mapping) for each in given):
        return mapped_rows(cast("Sequence[Mapping[str, object]]", given), form)
    raise bad_input(f"{where}: records are arrays, texts of a text model, or rows of a table")


def tokenized(texts: Sequence[str], tokenizer: Tokenizer, where: str) -> np.ndarray:
    """Return the token numbers of texts, none of which may be empty."""
    for number, text in enumerate(texts, start=1):
        if not text.strip():
            raise bad_input(f"{where}: text {number} is empty")
    return tokenizer(texts)


def _checked(x: np.ndarray, form: Form, where: str) -> np.ndarray:
    """Return an array as (n, *shape); greys may leave their one channel out."""
    shape = form.shape
    if form.kind == "image" and shape[2] == 1 and shape[:2] in (x.shape, x.shape[1:]):
        x = x[..., None]
    if x.shape == shape:
        x = x[None]
    if x.shape[1:] != shape or len(x) == 0 or x.dtype.kind not in "fiub":
        raise bad_input(f"{where}: records must be finite numbers of shape {shape}")
    x = x.astype(np.uint8) if x.dtype.kind == "b" else x
    if form.dtype == "float32" and x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what is too large becomes infinite, which is refused
            x = x.astype(np.float32, copy=False)
    numbers = x[:, : len(form.numbers)] if form.kind == "table" else x
    if form.kind == "table" and form.missing != "refuse":
        numbers = np.where(np.isnan(numbers), 0, numbers)  # missing, which the model reads
    if numbers.dtype.kind == "f" and not np.isfinite(numbers).all():
        raise bad_input(f"{where}: records must be finite numbers of shape {shape}")
    if form.kind == "table":
        _require_categories(x, form, where)
    if form.kind == "image" and (x.min() < 0 or x.max() > 255):
        raise bad_input(f"{where}: values of pixels are 0 to 255")
    if form.dtype != "float32" and not _whole(x, form.dtype):
        raise bad_input(f"{where}: values must be whole numbers of type {form.dtype}")
    return x


def _require_categories(x: np.ndarray, form: Form, where: str) -> None:
    """Refuse what is no index of a category; -1 where the plan knows others, or missing ones."""
    least = 0 if form.missing == "refuse" and form.unknown == "refuse" else -1
    for place, (column, known) in enumerate(form.categories.items(), len(form.numbers)):
        values = x[:, place]
        if not np.isin(values, np.arange(least, len(known))).all():
            raise bad_input(f"{where}, column '{column}': a value is no category's index")


def _whole(x: np.ndarray, dtype: str) -> bool:
    limits = np.iinfo(dtype)
    fits = x.min() >= limits.min and x.max() <= limits.max
    return bool(fits and (x.dtype.kind != "f" or (np.floor(x) == x).all()))

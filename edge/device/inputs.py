"""Raw records from files, as the bundle's input.json says that they look."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .arrays import NPY_MAGIC, ZIP_MAGIC, one_array
from .errors import DeviceError, bad_input
from .files import read_limited, read_stream
from .forms import Form
from .names import MAX_INPUT_BYTES
from .pictures import picture
from .records import as_records, tokenized
from .tables import DELIMITER_OF, DELIMITERS, array_rows, table_rows, texts_of
from .texts import Tokenizer

SUFFIXES = {
    "image": (".png", ".jpg", ".jpeg", ".pgm", ".ppm", ".npy", ".npz"),
    "table": (".csv", ".tsv", ".tab", ".psv", ".npy", ".npz"),
    "text": (".txt", ".npy", ".npz"),
    "array": (".npy", ".npz", ".csv", ".tsv", ".tab", ".psv"),
}
STDIN = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Records of one file: raw ``x`` (n, ...), what each is called, notes on the file."""

    x: np.ndarray
    called: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How files are read: the form, its tokenizer, and what a table's file needs said.

    ``delimiter`` is a word of ``DELIMITERS``, "" for the one of the file's name; ``marks`` stand
    for a missing value, as an empty cell always does.
    """

    form: Form
    tokenizer: Tokenizer | None = None
    delimiter: str = ""
    marks: tuple[str, ...] = ()


def read_inputs(inputs: Sequence[str], reading: Reading) -> Iterator[Batch]:
    """Yield the records of files, of the files in folders, and of ``-``, standard input.

    Raises ``DeviceError``: 65 for what cannot be read, 66 for what is not there.
    """
    for given in inputs:
        if given == STDIN:
            raw = read_stream(sys.stdin.buffer, MAX_INPUT_BYTES)
            if len(raw) > MAX_INPUT_BYTES:
                raise bad_input("standard input is too large")
            yield read_records(raw, "standard input", reading)
            continue
        for path in _files_of(Path(given), reading.form):
            yield read_records(_input_bytes(path), path.name, reading)


def read_texts(texts: Sequence[str], reading: Reading) -> Batch:
    """Return texts that were given on the command line."""
    if reading.tokenizer is None:
        raise bad_input(f"--text: this model reads records of the kind {reading.form.kind}")
    x = tokenized(texts, reading.tokenizer, "--text")
    return Batch(x=x, called=tuple(f"text {number}" for number in range(1, len(texts) + 1)))


def read_records(raw: bytes, name: str, reading: Reading) -> Batch:
    """Return the records in a file's bytes; ``name`` is what errors call it.

    .npy and .npz are always read; what else there is decides the form's kind.
    """
    form = reading.form
    try:
        if raw.startswith((NPY_MAGIC, ZIP_MAGIC)):
            x = as_records(one_array(raw), form, reading.tokenizer, name)
            return Batch(x=x, called=_numbered(name, range(1, len(x) + 1)))
        if form.kind == "image":
            return Batch(x=picture(raw, form.shape)[None], called=(name,))
        text = raw.decode("utf-8-sig")
    except UnicodeError:
        raise bad_input(f"{name} is neither text in UTF-8 nor .npy nor .npz") from None
    except ValueError as error:
        raise bad_input(f"{name}: {error}") from None
    if reading.tokenizer is not None:
        return _read_lines(text, name, reading.tokenizer)
    word = reading.delimiter or DELIMITER_OF.get(Path(name).suffix.lower(), "comma")
    if form.kind == "table":
        rows = table_rows(text, form, name, delimiter=DELIMITERS[word], marks=reading.marks)
    else:
        rows = array_rows(text, form.shape, name, DELIMITERS[word])
    x = as_records(rows.x, form, None, name)
    return Batch(x=x, called=_numbered(name, rows.rows), notes=rows.notes)


def _read_lines(text: str, name: str, tokenizer: Tokenizer) -> Batch:
    lines = list(texts_of(text))
    if not lines:
        raise bad_input(f"{name} holds no text")
    x = tokenizer([line for _, line in lines])
    return Batch(x=x, called=_numbered(name, [number for number, _ in lines]))


def _numbered(name: str, numbers: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"{name}:{number}" for number in numbers)


def _files_of(path: Path, form: Form) -> list[Path]:
    """Return a file itself, or a folder's files whose names end as this form's do."""
    if not path.is_dir():
        return [path]
    wanted = SUFFIXES[form.kind]
    found = sorted(each for each in path.iterdir() if each.suffix.lower() in wanted)
    if not found:
        raise bad_input(f"the folder {path.name} holds no file of the kinds {', '.join(wanted)}")
    return found


def _input_bytes(path: Path) -> bytes:
    try:
        return read_limited(path, MAX_INPUT_BYTES)
    except DeviceError as error:
        if error.code == "TOO LARGE":
            raise bad_input(error.reason) from None
        raise

"""Files with labels: a folder per class, or a table that names the files beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput, Problem
from ..core.fields import shown
from ..core.plan import Plan
from ..core.site_data_section import DataSection
from .growing import SPILL_BYTES, Growing
from .pixels import BadPicture
from .problems import MOST, Faults
from .reader_csv import CsvSource
from .reader_labels import class_indices
from .site_data import Labels
from .table_build import read_table

TABLE = "labels.csv"
COLUMN = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileList:
    """Files of records: (n,) ``paths``, (n, ...) labels, (n,) units or None.

    ``rows`` (n,) are their row numbers where a table lists them.
    """

    paths: tuple[Path, ...]
    y: Labels
    units: NDArray[Any] | None = None
    rows: NDArray[np.int64] | None = None

    def called(self, index: int) -> str:
        """Return how people find a file: its name, and its row or its place among all paths.

        Two folders may hold one name; the folder's own name is a label and is not said.
        """
        name = shown(self.paths[index].name)
        if self.rows is not None:
            return f"{name} (row {self.rows[index]} of the table)"
        return f"{name} (file {index + 1} of {len(self.paths)} in sorted order)"


def labelled_files(
    path: Path, plan: Plan, section: DataSection, *, suffixes: Sequence[str], labels: bool = True
) -> FileList:
    """Return the files below a folder and their labels.

    ``path`` is a table with a column "file", or a folder that holds one as labels.csv; otherwise
    each folder in it is a class. Raises ``InvalidInput``.
    """
    table = path if path.is_file() else path / TABLE
    if table.is_file():
        return _from_table(table, plan, section, labels=labels)
    if section.unit is not None:
        raise InvalidInput(
            f"{path.name}: folders do not say to which unit each file belongs",
            why="[data] unit is set",
            cure=f"write a table {TABLE} with the columns file, {section.label}, {section.unit}",
        )
    if not labels:
        files = files_in(path, suffixes)
        return FileList(paths=files, y=np.empty(0, dtype=np.int64))
    return _from_folders(path, plan, section, suffixes)


def files_in(folder: Path, suffixes: Sequence[str]) -> tuple[Path, ...]:
    """Return the folder's files with these suffixes, by name; hidden ones are not looked at.

    Raises ``InvalidInput`` when there are none.
    """
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise InvalidInput(
            f"{folder.name} holds no record",
            why=f"it has no file {' or '.join(suffixes)}",
            cure="compare [data] path and reader",
        )
    return tuple(found)


def read_all(
    files: FileList,
    read: Callable[[Path], NDArray[Any]],
    *,
    source: str,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    spill_bytes: int = SPILL_BYTES,
) -> NDArray[Any]:
    """Return (n, *shape): what ``read`` makes of each file.

    Raises ``InvalidInput`` that names the files which cannot be read, and why.
    """
    grown = Growing(shape, dtype, spill_bytes=spill_bytes)
    bad: dict[str, list[str]] = {}
    for index, path in enumerate(files.paths):
        try:
            grown.append(read(path)[None])
        except BadPicture as error:
            bad.setdefault(str(error), []).append(files.called(index))
        except OSError as error:
            why = error.strerror or type(error).__name__
            bad.setdefault(f"it cannot be opened: {why}", []).append(files.called(index))
    if bad:
        total = len(files.paths)
        raise InvalidInput(source, [_unreadable(why, names, total) for why, names in bad.items()])
    return grown.finish()


def _unreadable(why: str, names: Sequence[str], total: int) -> Problem:
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return Problem(
        where=", ".join(names[:MOST]) + more,
        what=f"{len(names)} of {total} files cannot be read: {why}",
        why="Every record must be whole before training begins",
        cure="export those files again, or leave them out",
    )


def _from_folders(
    path: Path, plan: Plan, section: DataSection, suffixes: Sequence[str]
) -> FileList:
    folders = sorted(
        each for each in path.iterdir() if each.is_dir() and not each.name.startswith(".")
    )
    if not folders:
        raise InvalidInput(
            f"{path.name} holds no folder",
            why=f"without a table {TABLE} each folder in it is a class",
            cure=f"make one folder per class, or write {TABLE}",
        )
    names = [section.labels.get(folder.name, folder.name) for folder in folders]
    faults = Faults()
    codes = class_indices(names, plan.model.classes, faults)
    if faults:
        raise InvalidInput(path.name, [_no_class(folders, codes)])
    paths: list[Path] = []
    labels: list[NDArray[np.int64]] = []
    for folder, code in zip(folders, codes, strict=True):
        files = files_in(folder, suffixes)
        paths += files
        labels.append(np.full(len(files), code, dtype=np.int64))
    return FileList(paths=tuple(paths), y=np.concatenate(labels))


def _no_class(folders: Sequence[Path], codes: Labels) -> Problem:
    wrong = [folder.name for folder, code in zip(folders, codes, strict=True) if code < 0]
    return Problem(
        where="folder " + ", ".join(shown(name) for name in wrong[:MOST]),
        what="is not a class of the plan",
        why="Each folder's name is a class",
        cure="rename it, map it in [data.labels], or move it away",
    )


def _from_table(table: Path, plan: Plan, section: DataSection, *, labels: bool) -> FileList:
    source = CsvSource(table, replace(section, columns=(), delimiter=None))
    found = read_table(source, plan, section, text=COLUMN, labels=labels)
    root = table.parent.resolve()
    paths = tuple(root / str(name).strip() for name in found.x)
    outside = [row for row, path in enumerate(paths) if not _inside(path, root)]
    if outside:
        raise InvalidInput(
            f"{table.name}: {len(outside)} of {len(paths)} files lie outside its folder",
            why="a table names files beside it, or in folders below",
            cure="write relative names without ..",
        )
    files = FileList(paths=paths, y=found.y, units=found.units, rows=found.rows)
    absent = [index for index, path in enumerate(paths) if not path.is_file()]
    if absent:
        raise InvalidInput(
            f"{table.name}: {len(absent)} of the {len(paths)} files that it names are not there",
            why=f"the first of them: {files.called(absent[0])}",
            cure="export them again, or leave their rows out",
        )
    return files


def _inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve().is_relative_to(root)
    except (OSError, ValueError):
        return False

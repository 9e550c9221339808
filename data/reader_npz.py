"""Records as NumPy arrays in one .npz file; a pickled object is never unpacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput, Problem
from ..core.plan import Plan
from ..core.site_data_section import DataSection
from .cells import Column, Marks, plain
from .identity import Identities, array_ids
from .npz_labels import label_cells, masks
from .npz_pixels import images, jpegs
from .problems import Faults, row_words
from .reader_table import Parts, Table
from .table_build import read_table
from .table_columns import Chunk, Columns, label_columns
from .targets import target_of

Arrays = Mapping[str, NDArray[Any]]
TRAIN = "train"
ENCODED = "encoded"
"""A single true beside parts: they are what a reader gave before, and are taken as they are."""
_UNIT = "unit"


def read_npz(path: Path, plan: Plan, section: DataSection) -> Table | Parts:
    """Return the arrays ``x, y [, unit]`` as one table, or the parts that the file names.

    Parts are ``train_x, train_y, test_x, test_y [, train_units, test_units]`` or MedMNIST's
    ``train_images, train_labels, ...`` with ``val`` to calibrate; their order is kept. Instead
    of ``x`` there may be ``jpeg`` (all bytes of all pictures) and ``offset`` (n + 1); any other
    array of one value per record may choose rows in [data.rows], be the [data] unit or event,
    and a boolean ``train`` says which records train. The columns of a table are the plan's
    features in order; beside a single true ``encoded`` parts have the forms of ``site_data``
    already, as a simulation deals them. Raises ``InvalidInput`` for other names, pickled arrays
    and bad values.
    """
    arrays = _arrays(path)
    section = replace(section, event=section.event or "event")
    reader = _Reader(path, plan, section)
    for x, y, units in (("x", "y", "units"), ("images", "labels", "units")):
        if f"train_{x}" in arrays or f"test_{x}" in arrays:
            return reader.parts(arrays, x, y, units)
    if "y" in arrays and ("x" in arrays or {"jpeg", "offset"} <= set(arrays)):
        return reader.whole(arrays)
    raise InvalidInput(
        f"{path.name} does not hold the arrays of a site",
        why="they are x (or jpeg and offset) and y; or train_x, train_y, test_x, test_y; or "
        "train_images, train_labels, test_images, test_labels",
        cure="save them with numpy.savez under these names",
    )


def _arrays(path: Path) -> Arrays:
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception:  # damage can raise anything, and NumPy's words may quote what it found
        raise InvalidInput(
            f"{path.name} is not an .npz file of plain arrays",
            why="it is damaged, or holds objects that would have to be unpickled",
            cure="save plain arrays of numbers and texts with numpy.savez, without a password",
        ) from None


@dataclass(frozen=True, slots=True)
class _Reader:
    path: Path
    plan: Plan
    section: DataSection

    def parts(self, arrays: Arrays, x: str, y: str, units: str) -> Parts:
        needed = {f"{part}_{name}" for part in ("train", "test") for name in (x, y)}
        if absent := sorted(needed - set(arrays)):
            raise InvalidInput(
                f"{self.path.name} lacks {', '.join(absent)}",
                why="a file of parts holds inputs and labels of each",
                cure="save them with numpy.savez under these names",
            )
        mark = arrays.get(ENCODED)
        encoded = mark is not None and mark.dtype == np.bool_ and mark.shape == () and bool(mark)
        table = self._as_it_is if encoded else self._table
        train, test = (
            table(arrays[f"{p}_{x}"], arrays[f"{p}_{y}"], arrays.get(f"{p}_{units}"), {})
            for p in ("train", "test")
        )
        val = None
        if f"val_{x}" in arrays and f"val_{y}" in arrays:
            val = table(arrays[f"val_{x}"], arrays[f"val_{y}"], arrays.get(f"val_{units}"), {})
        if train.x.shape[1:] != test.x.shape[1:]:
            raise InvalidInput(
                f"{self.path.name}: train_{x} and test_{x} hold records of different shapes",
                cure="write both parts from the same table",
            )
        return Parts(train=train, test=test, calibration=val)

    def whole(self, arrays: Arrays) -> Table | Parts:
        y = arrays["y"]
        x = arrays["x"] if "x" in arrays else np.empty((0, 0))
        count = len(arrays["x"] if "x" in arrays and x.ndim else y) if y.ndim else -1
        extra = {
            name: array
            for name, array in arrays.items()
            if name not in ("x", "jpeg", "offset") and array.shape[:1] == (count,)
        }
        unit = arrays.get(_UNIT, extra.get(self.section.unit or ""))
        self._check_names(extra)
        own = np.ones(max(count, 0), dtype=np.bool_)
        for name, wanted in self.section.rows.items():
            allowed = {plain(value) for value in wanted}
            own &= np.array([Marks().text(v) in allowed for v in extra[name].tolist()], np.bool_)
        if not own.any() and count > 0:
            raise InvalidInput(
                f"{self.path.name}: none of its {count} records is this site's",
                why="[data.rows] chooses by the values of an array",
                cure="compare [data.rows] with that array",
            )
        ids: Identities | None = None
        if "x" not in arrays:
            x, ids = self._jpegs(arrays, own)
        elif x.ndim:
            x = x[own] if len(own) == len(x) and not own.all() else x
        marks = extra.get(TRAIN)
        if not own.all():
            y, unit = y[own], None if unit is None else unit[own]
            extra = {name: array[own] for name, array in extra.items()}
            marks = extra.get(TRAIN)
        if marks is None or marks.dtype != np.bool_ or marks.ndim != 1:
            return self._table(x, y, unit, extra, ids)
        train, test = (
            self._table(
                x[chosen],
                y[chosen],
                None if unit is None else unit[chosen],
                {name: array[chosen] for name, array in extra.items()},
                None if ids is None else ids[chosen],
            )
            for chosen in (marks, ~marks)
        )
        return Parts(train=train, test=test)

    def _check_names(self, extra: Arrays) -> None:
        flat = {name for name, array in extra.items() if array.ndim == 1}
        absent = [name for name in self.section.rows if name not in flat]
        if absent:
            raise InvalidInput(
                f"{self.path.name} has no array {absent[0]} with one value per record",
                why="[data.rows] chooses by it",
                cure="compare [data.rows] with the names of the arrays",
            )

    def _jpegs(
        self, arrays: Arrays, own: NDArray[np.bool_]
    ) -> tuple[NDArray[np.uint8], Identities]:
        return jpegs(
            arrays["jpeg"], arrays["offset"], self.plan.model.image, own, source=self.path.name
        )

    def _table(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        units: NDArray[Any] | None,
        extra: Arrays,
        ids: Identities | None = None,
    ) -> Table:
        """Return one part; ``ids`` are those of pictures that had to be decoded."""
        self._check_lengths(x, y, units)
        model = self.plan.model
        if x.dtype.kind not in "fiub":
            raise InvalidInput(
                f"{self.path.name}: the inputs are not numbers",
                cure="turn categories into numbers first",
            )
        ids = array_ids(x, y) if ids is None else ids
        if model.bounds or model.categories:
            found = self._features(x, y, units, extra)
            left = np.ones(len(x), dtype=np.bool_)
            left[found.rows] = False
            return replace(found, ids=ids[~left], left_out=ids[left])
        values = images(x, model.image, source=self.path.name) if model.image else _floats(x)
        self._check_finite(values)
        if model.task == "segmentation":
            labels = masks(y, model, self.section, source=self.path.name)
        else:
            labels = self._labels(y, extra)
        return Table(x=values, y=labels, units=units, ids=ids)

    def _as_it_is(
        self, x: NDArray[Any], y: NDArray[Any], units: NDArray[Any] | None, extra: Arrays
    ) -> Table:
        """Return encoded records: category places, class indices, tokens; checked as all are."""
        if x.shape[:1] != (0,) or y.shape[:1] != (0,):
            self._check_lengths(x, y, units)
        return Table(x=x, y=y, units=units)

    def _features(
        self, x: NDArray[Any], y: NDArray[Any], units: NDArray[Any] | None, extra: Arrays
    ) -> Table:
        """Return a table's records: the columns of ``x`` are the plan's features, in order."""
        model = self.plan.model
        features = (*model.bounds, *model.categories)
        flat = x.reshape(len(x), -1) if x.size else x.reshape(len(x), 0)
        if flat.shape[1] != len(features):
            raise InvalidInput(
                f"{self.path.name}: a record has {flat.shape[1]} values, the plan's features"
                f" are {len(features)}",
                why="each column of x is one of the plan's features, in the plan's order",
                cure="save the columns that the plan names, in its order",
            )
        cells: dict[str, Column] = {name: flat[:, i] for i, name in enumerate(features)}
        cells |= label_cells(y, extra, model, self.section, source=self.path.name)
        section = replace(self.section, rows={}, unit=None)
        if units is not None:  # by their place, so that they come back as they are
            cells[_UNIT] = [str(i) if str(unit) else "" for i, unit in enumerate(units.tolist())]
            section = replace(section, unit=_UNIT)
        found = read_table(_ArraySource(self.path.name, cells, len(x)), self.plan, section)
        if units is None or found.units is None:
            return found
        return replace(found, units=units[found.units.astype(np.int64)])

    def _labels(self, y: NDArray[Any], extra: Arrays) -> NDArray[Any]:
        model, marks, faults = self.plan.model, Marks.of(self.section.missing), Faults()
        cells = label_cells(y, extra, model, self.section, source=self.path.name)
        names = label_columns(model, self.section)
        target = target_of(model, self.section, names, marks)
        rows = np.arange(len(y), dtype=np.int64)
        faults.add("", "label", rows[target.missing(cells)].tolist())
        target.add(cells, rows, faults)
        found = target.finish(faults)
        if faults:
            raise InvalidInput(self.path.name, faults.problems())
        return found

    def _check_lengths(self, x: NDArray[Any], y: NDArray[Any], units: NDArray[Any] | None) -> None:
        arrays = (x, y) if units is None else (x, y, units)
        lengths = {len(array) if array.ndim else -1 for array in arrays}
        flat_units = units is None or units.ndim == 1
        if len(lengths) != 1 or -1 in lengths or x.ndim < 2 or not flat_units:
            raise InvalidInput(
                f"{self.path.name}: inputs, labels and units do not belong together",
                why="x is (records, ...), y begins with the records, unit is (records,)",
                cure="save them again from one table",
            )
        if not len(x):
            raise InvalidInput(f"{self.path.name} holds no record", cure="export the records again")

    def _check_finite(self, values: NDArray[Any]) -> None:
        if values.dtype.kind != "f":
            return
        finite = np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if not finite.all():
            problem = Problem(
                where=row_words(np.flatnonzero(~finite).tolist()),
                what="holds NaN or infinite values",
                why="Records are raw numbers; a missing value cannot be guessed here",
                cure="fill it by a rule that you can defend, or leave the record out",
            )
            raise InvalidInput(self.path.name, [problem])


class _ArraySource:
    """Columns in memory as a table; row 0 is the first record, as NumPy counts."""

    def __init__(self, name: str, cells: Mapping[str, Column], count: int) -> None:
        self._name, self._cells, self._count = name, cells, count

    @property
    def name(self) -> str:
        return self._name

    @property
    def header(self) -> tuple[str, ...]:
        return tuple(self._cells)

    def chunks(self, columns: Columns) -> Iterator[Chunk]:
        yield Chunk(columns=self._cells, rows=np.arange(self._count, dtype=np.int64))


def _floats(x: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(x, dtype=np.float32)

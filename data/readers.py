"""A site's records from its own files: raw values, labels, units, and a split of their own.

Problems name files, columns and row numbers, never a value: they are shown at the site alone,
and even there a value does not belong into a log.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..core.errors import CollegiumError, InvalidInput, MissingInput, Refused
from ..core.plan import Plan
from ..core.plugins import is_plugin, load_plugin
from ..core.site_data_section import with_environment
from ..core.site_file import SiteFile
from .growing import SPILL_BYTES
from .reader_csv import CsvSource
from .reader_dicom import read_dicom
from .reader_images import read_images
from .reader_npz import read_npz
from .reader_parquet import ParquetSource
from .reader_sql import SqlSource
from .reader_table import Parts, Table, divided, split
from .reader_text import text_source
from .site_data import SiteData
from .table_build import read_table

_FOLDERS = ("images", "dicom")


def read_site_data(
    file: SiteFile, plan: Plan, *, seed: int | None = None, spill_bytes: int = SPILL_BYTES
) -> SiteData:
    """Return the records that site.toml names, split into training, test and calibration part.

    Tables come as float32 (n, numbers + categories), pictures as uint8, texts as texts; see
    ``docs/data.md`` for every reader. ``seed`` makes another split of the same records, for
    simulations; arrays above ``spill_bytes`` lie in a nameless temporary file. Raises
    ``MissingInput``, ``InvalidInput`` and ``NotAvailable`` (an extra is not installed), and
    ``Refused`` for a plug-in that [policy] plugins does not name.
    """
    found = _read(file, plan, spill_bytes)
    if file.data.test_path is not None:
        found = _with_test(found, file, plan, spill_bytes)
    held_out = 0.0 if plan.calibration is None else plan.calibration.held_out
    if isinstance(found, Parts):
        return divided(found, asset=file.data.asset, held_out=held_out, seed=seed)
    return split(
        found,
        asset=file.data.asset,
        test_share=file.data.test_share,
        test_rows=file.data.test_rows,
        held_out=held_out,
        seed=seed,
    )


def _with_test(found: Table | Parts, file: SiteFile, plan: Plan, spill_bytes: int) -> Parts:
    """Return the records of [data] path as training part, those of test_path as test part."""
    own = replace(file, data=replace(file.data, path=file.data.test_path or "", test_path=None))
    test = _read(own, plan, spill_bytes)
    if isinstance(found, Parts) or isinstance(test, Parts):
        raise InvalidInput(
            "[data] test_path is set beside a file that names its own test records",
            cure="remove [data] test_path, or name files without parts",
        )
    if found.x.shape[1:] != test.x.shape[1:]:
        raise InvalidInput(
            "[data] path and test_path hold records of different shapes",
            cure="write both from the same table",
        )
    return Parts(train=found, test=test)


def _read(file: SiteFile, plan: Plan, spill_bytes: int) -> Table | Parts:
    found = _dispatch(file, plan, spill_bytes)
    tables = (found,) if isinstance(found, Table) else (found.train, found.test)
    if file.data.unit is not None and any(table.units is None for table in tables):
        raise InvalidInput(
            f"{Path(file.data.path).name} does not say to which unit each record belongs",
            why="[data] unit is set, but the file holds no array of units",
            cure="add it (unit, or train_units and test_units), or remove [data] unit",
        )
    return found


def _dispatch(file: SiteFile, plan: Plan, spill_bytes: int) -> Table | Parts:
    section, reader = file.data, file.data.reader
    if is_plugin(reader):
        return _plugin(file, plan)
    if reader == "sql":
        return read_table(_database(file), plan, section, spill_bytes=spill_bytes)
    path = existing(file.data_path, folder=reader in _FOLDERS)
    try:
        match reader:
            case "csv":
                return read_table(CsvSource(path, section), plan, section, spill_bytes=spill_bytes)
            case "parquet":
                return read_table(ParquetSource(path), plan, section, spill_bytes=spill_bytes)
            case "text":
                column = section.text or "text"
                return read_table(text_source(path, section), plan, section, text=column)
            case "images":
                return read_images(path, plan, section, spill_bytes=spill_bytes)
            case "dicom":
                return read_dicom(path, plan, section, spill_bytes=spill_bytes)
            case _:
                return read_npz(path, plan, section)
    except OSError as error:
        raise _unreadable(path, error) from None


def existing(path: Path, *, folder: bool) -> Path:
    """Return the path of records that can be opened; ``folder``: it may be a folder.

    Raises ``MissingInput`` when nothing is there or may be read, ``InvalidInput`` for the wrong
    kind of thing.
    """
    try:
        if path.is_dir():
            if not folder:
                raise InvalidInput(
                    f"{path} is a folder",
                    why="this reader reads one file",
                    cure="write the file's name behind it, or name another reader",
                )
            next(path.iterdir(), None)
            return path
        if not path.exists():
            raise MissingInput(
                f"there are no records at {path}",
                why="[data] path names them",
                cure="correct [data] path in site.toml; it is relative to that file",
            )
        if not path.is_file():
            raise InvalidInput(f"{path} is no file", cure="correct [data] path in site.toml")
        with path.open("rb") as stream:
            empty = not stream.read(1)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if empty:
        raise InvalidInput(
            f"{path.name} is empty", why="it has 0 bytes", cure="export the records again"
        )
    return path


def _unreadable(path: Path, error: OSError | ValueError) -> CollegiumError:
    said = error.strerror if isinstance(error, OSError) else None
    return MissingInput(
        f"the records at {path} cannot be read",
        why=said or type(error).__name__,
        cure="give this user the right to read them, and no other user",
    )


def _database(file: SiteFile) -> SqlSource:
    where = with_environment(file.data.path)
    if "://" not in where:
        where = str(existing(file.data_path, folder=False))
    return SqlSource(where, file.data.query)


def _plugin(file: SiteFile, plan: Plan) -> Table | Parts:
    """Return what an installed package's ``reader(file, plan)`` reads."""
    name = file.data.reader
    if name not in file.policy.plugins:
        raise Refused(
            f"[policy] plugins does not name the reader '{name}'",
            why="code of another package runs beside the records only where the site says so",
            cure=f'add "{name}" to [policy] plugins, if you trust that package',
        )
    reader = load_plugin("readers", name)
    try:
        found = reader(file, plan)
    except CollegiumError:
        raise
    except Exception as error:  # its words may quote a record
        raise InvalidInput(
            f"the reader '{name}' failed",
            why=f"{type(error).__name__}; its words are not shown, they may hold a value",
            cure="run it by hand on these records",
        ) from None
    if not isinstance(found, (Table, Parts)):
        raise InvalidInput(
            f"the reader '{name}' returned no table",
            why="it must return a data.reader_table.Table or Parts",
            cure="correct that package",
        )
    return found

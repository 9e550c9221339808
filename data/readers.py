"""A site's records from its own file: raw values, labels, units, and a split of their own.

Problems name files, columns and row numbers, never a value: they are shown at the site alone,
and even there a value does not belong into a log.
"""

from __future__ import annotations

from ..core.errors import InvalidInput, MissingInput, NotBuiltYet
from ..core.plan import Plan
from ..core.site_file import SiteFile
from .reader_csv import read_csv
from .reader_npz import read_npz
from .reader_table import Table, split
from .site_data import SiteData

READERS = ("csv", "npz")


def read_site_data(file: SiteFile, plan: Plan) -> SiteData:
    """Return the records that site.toml names, split into a training and a test part.

    ``csv``: a header row and numbers; ``npz``: arrays ``x``, ``y`` and perhaps ``unit``, or both
    parts given explicitly, whose order is then kept. Raises ``MissingInput``, ``InvalidInput``
    and, for other readers and tasks, ``NotBuiltYet``.
    """
    _check_built(file, plan)
    path = file.data_path
    if not path.is_file():
        raise MissingInput(
            f"there are no records at {path}",
            why="[data] path names that file",
            cure="correct [data] path in site.toml; it is relative to that file",
        )
    if file.data.reader == "npz":
        parts = read_npz(path, classes=plan.model.classes)
    else:
        parts = read_csv(
            path,
            label=file.data.label,
            unit=file.data.unit,
            features=tuple(plan.model.bounds),
            classes=plan.model.classes,
        )
    if file.data.unit is not None and any(part.units is None for part in _tables(parts)):
        raise InvalidInput(
            f"{path.name} does not say to which unit each record belongs",
            why="[data] unit is set, but the file holds no array of units",
            cure="add it (unit, or train_units and test_units), or remove [data] unit",
        )
    if isinstance(parts, Table):
        return split(parts, asset=file.data.asset, test_share=file.data.test_share)
    train, test = parts
    return SiteData(
        asset=file.data.asset,
        train_x=train.x,
        train_y=train.y,
        test_x=test.x,
        test_y=test.y,
        train_units=train.units,
        test_units=test.units,
    )


def _tables(parts: Table | tuple[Table, Table]) -> tuple[Table, ...]:
    return (parts,) if isinstance(parts, Table) else parts


def _check_built(file: SiteFile, plan: Plan) -> None:
    if file.data.reader not in READERS:
        raise NotBuiltYet(
            f"reader = '{file.data.reader}' is not built yet",
            why=f"this version reads {' and '.join(READERS)}",
            cure="export the records as csv or npz",
        )
    if plan.model.task != "classification":
        raise NotBuiltYet(
            f"records for the task '{plan.model.task}' are not built yet",
            why="this version reads class labels",
            cure="use task = 'classification'",
        )

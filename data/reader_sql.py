"""Records as the answer of one query, read in parts with SQLAlchemy; nothing is written."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import InvalidInput, MissingInput, NotAvailable
from .reader_csv import CHUNK
from .table_columns import Chunk, Columns, once

_CURE = (
    "try the query with the database's own program; a URL with a password belongs into an "
    'environment variable: path = "$NAME"'
)


class SqlSource:
    """The rows that ``query`` gives, row 1 the first; a null is a missing value.

    ``where`` is a URL of SQLAlchemy or the path of an SQLite file, which is opened for reading
    alone. Raises ``NotAvailable`` without SQLAlchemy or the database's driver, ``MissingInput``
    when the database does not answer, ``InvalidInput`` for a query that fails; no message
    holds the URL or a word of the database.
    """

    def __init__(self, where: str, query: str | None) -> None:
        if not query:
            raise InvalidInput(
                "[data] query is missing",
                why="reader sql reads the answer of one query",
                cure='write it, like query = "SELECT age, outcome FROM visits"',
            )
        self._query = query
        self._engine = _engine(where)
        with _Told(), self._connected() as connection:
            answer = connection.exec_driver_sql(self._query)
            self._header = tuple(str(name) for name in list(answer.keys()))
            answer.close()

    @property
    def name(self) -> str:
        """Return "the query's answer": neither URL nor query."""
        return "the query's answer"

    @property
    def header(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return self._header

    def chunks(self, columns: Columns) -> Iterator[Chunk]:
        """Yield all rows."""
        place = {name: number for number, name in enumerate(self._header)}
        start = 1
        with _Told(), self._connected() as connection:
            streamed = connection.execution_options(stream_results=True, max_row_buffer=CHUNK)
            for rows in streamed.exec_driver_sql(self._query).partitions(CHUNK):
                fields = [[row[number] for row in rows] for number in range(len(self._header))]
                yield Chunk(
                    columns={name: fields[place[name]] for name in columns.wanted},
                    rows=np.arange(start, start + len(rows), dtype=np.int64),
                    whole=once(self._header, fields),
                )
                start += len(rows)

    def _connected(self) -> Any:
        try:
            return self._engine.connect()
        except Exception as error:  # a driver's own errors quote URL and user
            raise MissingInput(
                "the database does not answer",
                why=f"{type(error).__name__}; its words are not shown, they may name the user",
                cure=_CURE,
            ) from None


class _Told:
    """Turn a driver's error into ours: its own words may quote URL, query or values."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None or not kind.__module__.startswith(("sqlalchemy", "sqlite3")):
            return
        raise InvalidInput(
            "the query failed", why=f"{kind.__name__}; its words are not shown", cure=_CURE
        ) from None


def _engine(where: str) -> Any:
    try:
        import sqlalchemy
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:
        raise NotAvailable(
            "databases cannot be read here",
            why="SQLAlchemy is not installed",
            cure="pip install 'collegium[sql]', or export the records as csv",
        ) from None
    if "://" not in where:
        return _sqlite(Path(where), sqlalchemy)
    try:
        return sqlalchemy.create_engine(where, poolclass=sqlalchemy.NullPool)
    except ImportError:
        raise NotAvailable(
            "this kind of database cannot be read here",
            why="its driver is not installed",
            cure="install the driver that the URL names",
        ) from None
    except (SQLAlchemyError, ValueError):
        raise InvalidInput(
            "[data] path is no URL of a database", why="it is not shown", cure=_CURE
        ) from None


def _sqlite(path: Path, sqlalchemy: Any) -> Any:
    name = path.resolve().as_uri() + "?mode=ro"
    return sqlalchemy.create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(name, uri=True),
        poolclass=sqlalchemy.NullPool,
    )

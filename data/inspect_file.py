"""Findings on a text file's form: line ends, quotes, byte order, columns that nobody reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ..core.errors import CollegiumError
from ..core.fields import shown
from ..core.plan import Plan
from ..core.site_file import SiteFile
from .findings import Finding
from .reader_csv import CsvSource
from .reader_parquet import ParquetSource
from .reader_text import text_source
from .table_columns import Source, columns_of

_HEAD = 65_536
_QUOTED_NUMBER = re.compile(rb'(^|[,;\t|])"[+-]?\d+(\.\d+)?"($|[,;\t|\r\n])', re.MULTILINE)
_UTF8 = re.compile(rb"[\xc3-\xf4][\x80-\xbf]")


def file_findings(file: SiteFile, plan: Plan) -> Iterator[Finding]:
    """Yield findings on a file of text or Parquet; nothing for other readers.

    A file that cannot be read yields nothing: the reader has said so already.
    """
    if file.data.reader not in ("csv", "text", "parquet"):
        return
    try:
        path = file.data_path
        if file.data.reader != "parquet":
            with path.open("rb") as stream:
                yield from _bytes(path, stream.read(_HEAD), file)
        yield from _columns(_source(path, file), plan, file)
    except (OSError, CollegiumError):
        return


def _source(path: Path, file: SiteFile) -> Source:
    match file.data.reader:
        case "csv":
            return CsvSource(path, file.data)
        case "parquet":
            return ParquetSource(path)
        case _:
            return text_source(path, file.data)


def _bytes(path: Path, head: bytes, file: SiteFile) -> Iterator[Finding]:
    if b"\r\n" in head:
        yield Finding(
            kind="file",
            where=path.name,
            what="its lines end as on Windows (CRLF)",
            cure="nothing to do: it is read alike; its SHA-256 differs from a copy with LF",
        )
    if head.startswith(b"\xef\xbb\xbf"):
        yield Finding(
            kind="file",
            where=path.name,
            what="it begins with a mark of byte order (BOM)",
            cure="nothing to do: the mark is left out",
        )
    if file.data.reader == "csv" and _QUOTED_NUMBER.search(head):
        yield Finding(
            kind="file",
            where=path.name,
            what="numbers stand in quotes",
            cure="nothing to do: they are read as numbers where the plan has bounds",
        )
    if file.data.encoding.lower() not in ("utf-8", "utf8") and _UTF8.search(head):
        try:
            head[: head.rfind(b"\n") + 1].decode("utf-8")
        except UnicodeDecodeError:
            return
        yield Finding(
            kind="file",
            where=path.name,
            what=f"it looks like UTF-8, but [data] encoding is {file.data.encoding}",
            cure='remove [data] encoding, or write encoding = "utf-8"',
        )


def _columns(source: Source, plan: Plan, file: SiteFile) -> Iterator[Finding]:
    section = file.data
    text = (section.text or "text") if section.reader == "text" else None
    read = columns_of(source, plan, section, text=text).wanted
    others = [name for name in source.header if name not in (*read, section.label)]
    if others and (plan.model.bounds or plan.model.categories):
        named = ", ".join(shown(name) for name in others[:8])
        more = f" and {len(others) - 8} more" if len(others) > 8 else ""
        yield Finding(
            kind="file",
            where=source.name,
            what=f"columns that the plan does not read: {named}{more}",
            cure="nothing to do: they are left out; if one of them is a person's number, name it "
            "in [data] unit",
        )

"""What a publisher signed, remembered outside the served folder, so that nobody can undo it there.

A folder that was put back to an older state offers again what was withdrawn since. The book lies
beside the signing key and knows better: the next index takes up where the last one ended.
"""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..core.errors import InvalidInput, MissingInput, Refused
from ..core.files import write_atomic
from .device.index import Index
from .device.store import Withdrawal

log = logging.getLogger(__name__)

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is known of one publication: the last sequence, versions by digest, withdrawals."""

    sequence: int = 0
    published: Mapping[str, int] = field(default_factory=dict[str, int])
    withdrawn: tuple[Withdrawal, ...] = ()

    @property
    def highest(self) -> int:
        """Return the highest version that was ever signed; 0 where there is none."""
        return max(self.published.values(), default=0)


def beside(key: Path) -> Path:
    """Return where the book of a private key lies: beside it, never in the served folder."""
    return key.with_name(f"{key.name}.book")


def recall(book: Path | None, name: str) -> Memory:
    """Return what the book knows of the publication ``name``; nothing where there is no book.

    Raises ``InvalidInput`` for a file that is no book.
    """
    return _read(book).get(name, Memory()) if book else Memory()


def remember(book: Path | None, index: Index) -> None:
    """Note an index before devices can see it: cut in between, the book is ahead, never behind.

    Raises ``MissingInput`` where the book cannot be written.
    """
    if book is None:
        return
    with _alone(book):
        known = _read(book)
        before = known.get(index.name, Memory())
        shown = {each.digest: each.version for each in (*index.offers, *index.withdrawn)}
        gone = {each.digest: each for each in (*before.withdrawn, *index.withdrawn)}
        known[index.name] = Memory(
            sequence=max(before.sequence, index.sequence),
            published={**before.published, **shown},
            withdrawn=tuple(gone.values()),
        )
        rows = {name: _row(memory) for name, memory in known.items()}
        text = json.dumps(
            {"schema": SCHEMA, "publications": rows}, indent=1, sort_keys=True, ensure_ascii=False
        )
        write_atomic(book, (text + "\n").encode(), mode=0o600)


def caught_up(index: Index, memory: Memory) -> Index:
    """Return ``index`` with every withdrawal that was ever signed, and no sequence before it."""
    known = index.gone()
    back = [each for each in memory.withdrawn if each.digest not in known]
    gone = known | {each.digest for each in back}
    if back:
        versions = ", ".join(str(each.version) for each in back)
        log.warning(
            "this folder is older than what was signed last: withdrawn again, version %s", versions
        )
    return replace(
        index,
        sequence=max(index.sequence, memory.sequence),
        offers=tuple(offer for offer in index.offers if offer.digest not in gone),
        withdrawn=(*index.withdrawn, *back),
    )


def _row(memory: Memory) -> dict[str, Any]:
    gone = [
        {"version": each.version, "digest": each.digest, "reason": each.reason}
        for each in memory.withdrawn
    ]
    return {
        "sequence": memory.sequence,
        "published": dict(memory.published),
        "withdrawn": gone,
    }


def _read(book: Path) -> dict[str, Memory]:
    try:
        table = json.loads(book.read_bytes())
        if table["schema"] != SCHEMA:
            raise ValueError(table["schema"])
        return {str(name): _memory(row) for name, row in table["publications"].items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise MissingInput(f"the book {book} cannot be read", why=f"{error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InvalidInput(
            f"{book} is not a book of what was published",
            why="without it a withdrawal could be lost",
            cure="restore it from a backup, or name another one: --book FILE",
        ) from None


def _memory(row: Mapping[str, Any]) -> Memory:
    return Memory(
        sequence=int(row["sequence"]),
        published={str(digest): int(version) for digest, version in row["published"].items()},
        withdrawn=tuple(
            Withdrawal(
                version=int(each["version"]), digest=str(each["digest"]), reason=str(each["reason"])
            )
            for each in row["withdrawn"]
        ),
    )


@contextmanager
def _alone(book: Path) -> Generator[None]:
    try:
        with FileLock(book.with_name(f"{book.name}.lock"), timeout=10):
            yield
    except Timeout:
        raise Refused(f"{book} is in use", cure="try again when that is done") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise MissingInput(
            f"the book {book} cannot be written",
            why=f"{error.strerror}; it keeps withdrawals outside of the served folder",
            cure="name a place for it: --book FILE",
        ) from None

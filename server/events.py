"""events.jsonl: what a run's ServerApp tells, one JSON object per line, for whoever looks on.

Nothing in it that is not public: names, rounds, reason codes, and what a ``Release`` holds.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .store import Release

FILE = "events.jsonl"
KINDS = frozenset(
    ("started", "seen", "gone", "invited", "lost", "answered", "late", "round", "restored")
) | {"finished", "stopped"}

Event = dict[str, Any]


class EventLog:
    """Appends events; every line is whole or, after a crash, cut off and skipped by readers."""

    def __init__(self, folder: Path) -> None:
        path = folder / FILE
        torn = _is_torn(path)
        # 0644: what stands in it is public within the coordinator's host
        self._stream = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        if torn:
            os.write(self._stream, b"\n")

    def write(self, kind: str, **fields: Any) -> None:
        """Append one event with the time in seconds since the epoch."""
        if kind not in KINDS:
            raise ValueError(kind)
        line = json.dumps({"at": round(time.time(), 3), "kind": kind, **fields}, allow_nan=False)
        os.write(self._stream, line.encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._stream)


class EventReader:
    """Reads events as they are appended; asked again, it goes on where it stopped."""

    def __init__(self, folder: Path) -> None:
        self._path, self._offset = folder / FILE, 0

    def skip(self) -> None:
        """Pass over all that is there now: what an earlier process has already told."""
        self._offset = self._path.stat().st_size if self._path.is_file() else 0

    def new(self) -> Iterator[Event]:
        """Yield the events since the last look; an unfinished last line waits for its end."""
        try:
            with self._path.open("rb") as stream:
                stream.seek(self._offset)
                raw = stream.read()
        except FileNotFoundError:
            return
        whole = raw.rfind(b"\n") + 1
        self._offset += whole
        for line in raw[:whole].splitlines():
            if (event := _parsed(line)) is not None:
                yield event


def all_events(folder: Path) -> list[Event]:
    """Return every event of a run, oldest first."""
    return list(EventReader(folder).new())


def release_event(release: Release) -> Event:
    """Return a durable round as plain values."""
    return asdict(release)


def release_of(event: Event) -> Release:
    """Return the durable round that an event tells of."""
    values = {name: event[name] for name in Release.__dataclass_fields__}
    values["sites"], values["late"] = tuple(values["sites"]), tuple(values["late"])
    values["refused"] = tuple((site, code) for site, code in values["refused"])
    return Release(**values)


def _parsed(line: bytes) -> Event | None:
    try:
        event: Any = json.loads(line)
    except ValueError:
        return None  # a line that a crash cut off
    return event if isinstance(event, dict) and event.get("kind") in KINDS else None


def _is_torn(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) != b"\n"

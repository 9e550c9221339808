"""The coordinator's durable memory: one checkpoint per round, chained, resumable after any kill.

A round is durable when its safetensors file has been renamed into place and its row committed
(SQLite, ``synchronous=FULL``); a file without a row is overwritten by the next try.
"""

from __future__ import annotations

import json
import sqlite3
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from ..core.digest import canonical_bytes, sha256_hex
from ..core.errors import InvalidInput, OutputExists
from ..core.files import remove_partials, write_atomic
from ..core.layout import Vector
from ..core.messages import Sealed
from ..strategies.base import State

_KEPT = 2  # checkpoints: the newest, and the one before it should the disk lose a block

_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS rounds (
  round INTEGER PRIMARY KEY, file_sha256 TEXT NOT NULL, body TEXT NOT NULL
) STRICT;
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One durable round: the model that came out of it and who took part.

    ``seconds`` of wall time; ``bytes_up`` and ``bytes_down`` of message content in all.
    """

    round: int
    model_sha256: str
    prev_sha256: str
    sites: tuple[str, ...]
    refused: tuple[tuple[str, str], ...] = ()
    late: tuple[str, ...] = ()
    epsilon_by_site: dict[str, float] = field(default_factory=dict[str, float])
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict[str, float])
    site_metrics: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])

    def __str__(self) -> str:
        parts = [f"round {self.round}", f"{len(self.sites)} sites"]
        if "accuracy" in self.metrics:
            parts.append(f"accuracy {self.metrics['accuracy']:.3f}")
        if self.epsilon_by_site:
            parts.append(f"epsilon {max(self.epsilon_by_site.values()):.3f}")
        parts += [f"{site} refused ({code})" for site, code in self.refused]
        parts += [f"{site} late" for site in self.late]
        return ", ".join(parts)


class Store:
    """Rounds, checkpoints and received updates of one run."""

    def __init__(self, folder: Path, *, plan_digest: str, updates: Path) -> None:
        """Open or create the store; raises ``OutputExists`` when it holds another plan's run."""
        self._folder, self._updates = folder, updates
        folder.mkdir(parents=True, exist_ok=True)
        updates.mkdir(parents=True, exist_ok=True)
        remove_partials(folder)
        remove_partials(updates)
        self._db = sqlite3.connect(folder / "rounds.sqlite", check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        known = self._get("plan")
        if known is not None and known != plan_digest:
            raise OutputExists(
                "this folder holds the run of another plan",
                why="a run continues under the plan it began with",
                cure="resume with the same plan and flags, or choose another --out",
            )
        if known is None:
            self._put(plan=plan_digest, job=uuid.uuid4().hex)

    @property
    def job(self) -> str:
        """Return the id under which sites know this run; it survives every restart."""
        return str(self._get("job"))

    def history(self) -> list[Release]:
        """Return all durable rounds, oldest first."""
        rows = self._db.execute("SELECT body FROM rounds ORDER BY round").fetchall()
        return [_release(json.loads(body)) for (body,) in rows]

    def latest(self) -> tuple[int, Vector, State] | None:
        """Return (round, global vector, strategy state) of the newest durable round.

        Raises ``InvalidInput`` when the checkpoint is not the one that was committed.
        """
        row = self._db.execute(
            "SELECT round, file_sha256 FROM rounds ORDER BY round DESC LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        path = self._checkpoint(row[0])
        raw = path.read_bytes() if path.is_file() else b""
        if sha256_hex(raw) != row[1]:
            raise InvalidInput(
                f"the checkpoint of round {row[0]} is damaged",
                why="its digest is not the one that was committed",
                cure="restore the run's folder from a backup",
            )
        tensors = load(raw)
        vector = tensors.pop("vector").astype(np.float32, copy=False)
        return int(row[0]), vector, {name[6:]: value for name, value in tensors.items()}

    def commit(self, release: Release, vector: Vector, state: State) -> None:
        """Make a round durable: checkpoint file first, then its row."""
        tensors: dict[str, Any] = {"vector": vector}
        tensors |= {f"state.{name}": np.asarray(value) for name, value in state.items()}
        raw = save(tensors)
        write_atomic(self._checkpoint(release.round), raw)
        with self._db:
            self._db.execute(
                "INSERT INTO rounds VALUES (?, ?, ?)",
                (release.round, sha256_hex(raw), canonical_bytes(asdict(release)).decode()),
            )
        self._checkpoint(release.round - _KEPT).unlink(missing_ok=True)

    def keep_update(self, round: int, site: str, reply: Sealed) -> None:
        """Write an admitted reply to disk, where it waits for its turn and for the auditor."""
        folder = self._updates / f"round-{round:06d}"
        folder.mkdir(exist_ok=True)
        (folder / f"{site}.header").write_bytes(
            reply.header + b"\n" + reply.signature.hex().encode()
        )
        (folder / f"{site}.payload").write_bytes(reply.payload)

    def kept_payload(self, round: int, site: str) -> bytes:
        """Return the payload of an update that was kept before."""
        return (self._updates / f"round-{round:06d}" / f"{site}.payload").read_bytes()

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _checkpoint(self, round: int) -> Path:
        return self._folder / f"round-{round:06d}.safetensors"

    def _get(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM run WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _put(self, **values: str) -> None:
        with self._db:
            self._db.executemany("INSERT INTO run VALUES (?, ?)", values.items())


def _release(values: dict[str, Any]) -> Release:
    values["sites"] = tuple(values["sites"])
    values["refused"] = tuple((site, code) for site, code in values["refused"])
    values["late"] = tuple(values["late"])
    return Release(**values)

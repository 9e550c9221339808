"""The coordinator's durable memory: one checkpoint per round, chained, resumable after any kill.

A round is durable when its safetensors file has been renamed into place and its row committed
(SQLite, ``synchronous=FULL``); a file without a row is overwritten by the next try.

What grows: a row of some hundred bytes a round, and ``updates/``, which holds what every site
signed in every round. It must: an auditor recomputes each model from it, and so does recovery
when a checkpoint is lost. Checkpoints, which are larger, are two.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from ..core.digest import canonical_bytes, sha256_hex
from ..core.errors import InvalidInput, OutputExists
from ..core.layout import Vector
from ..core.messages import Sealed
from ..strategies.base import State
from .disk import Disk, LocalDisk

logger = logging.getLogger(__name__)

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

    ``seconds`` of wall time; ``bytes_up`` and ``bytes_down`` of message content in all;
    ``heads`` are the newest ledger heads that sites have signed, by site.
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
    heads: dict[str, str] = field(default_factory=dict[str, str])

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

    def __init__(
        self,
        folder: Path,
        *,
        plan_digest: str,
        updates: Path,
        disk: Disk | None = None,
        new_job: str | None = None,
    ) -> None:
        """Open or create the store; ``new_job`` names a run that begins here (default: at random).

        Raises ``OutputExists`` when it holds another plan's run, and ``InvalidInput`` when its
        database is damaged or its rounds do not follow from each other.
        """
        self._folder, self._updates = folder, updates
        self._disk = disk or LocalDisk()
        self._disk.prepare(folder)
        self._disk.prepare(updates)
        with _readable():
            self._db = self._disk.database(folder / "rounds.sqlite")
            self._db.executescript(_SCHEMA)
            known = self._get("plan")
            _check_chain(self.history())
        if known is not None and known != plan_digest:
            raise OutputExists(
                "this folder holds the run of another plan",
                why="a run continues under the plan it began with",
                cure="resume with the same plan and flags, or choose another --out",
            )
        if known is None:
            if not self._disk.is_empty(updates):
                raise InvalidInput(
                    "the database of this run's rounds is empty, but its updates are there",
                    why="under a new job every site would be charged anew",
                    cure="restore the run's folder from a backup",
                )
            self._put(plan=plan_digest, job=new_job or uuid.uuid4().hex)
        self._job = str(self._get("job"))

    @property
    def job(self) -> str:
        """Return the id under which sites know this run; it survives every restart."""
        return self._job

    def recall(self, name: str) -> Any:
        """Return what was remembered under a name, None when there is nothing."""
        found = self._get(f"once.{name}")
        return None if found is None else json.loads(found)

    def remember(self, name: str, values: dict[str, Any]) -> None:
        """Make plain values durable; once per name and run, before anything is built on them."""
        self._put(**{f"once.{name}": canonical_bytes(values).decode()})

    def history(self) -> list[Release]:
        """Return all durable rounds, oldest first."""
        rows = self._db.execute("SELECT body FROM rounds ORDER BY round").fetchall()
        return [_release(json.loads(body)) for (body,) in rows]

    def latest(self) -> tuple[int, Vector, State] | None:
        """Return (round, global vector, strategy state) of the newest checkpoint that is whole.

        A damaged one is passed over: what ``after`` it names can be computed again. None before
        the first, and when none is whole.
        """
        rows = self._db.execute(
            "SELECT round, file_sha256 FROM rounds ORDER BY round DESC LIMIT ?", (_KEPT,)
        ).fetchall()
        for number, file_sha256 in rows:
            raw = self._disk.read(self._checkpoint(number))
            if raw is not None and sha256_hex(raw) == file_sha256:
                tensors = load(raw)
                vector = tensors.pop("vector").astype(np.float32, copy=False)
                return int(number), vector, {name[6:]: value for name, value in tensors.items()}
            logger.error("the checkpoint of round %d is damaged or gone", number)
        return None

    def after(self, round: int) -> list[Release]:
        """Return the durable rounds that came after ``round``, oldest first."""
        return [release for release in self.history() if release.round > round]

    def mend(self, release: Release, vector: Vector, state: State) -> None:
        """Write a lost checkpoint again; raises ``InvalidInput`` unless it is the same model."""
        if sha256_hex(vector.astype("<f4", copy=False).tobytes()) != release.model_sha256:
            raise InvalidInput(
                f"the checkpoint of round {release.round} is damaged",
                why="what its round gives now is not the model that was committed",
                cure="restore the run's folder from a backup",
            )
        raw = _pack(vector, state)
        self._disk.write(self._checkpoint(release.round), raw)
        with self._db:
            self._db.execute(
                "UPDATE rounds SET file_sha256 = ? WHERE round = ?",
                (sha256_hex(raw), release.round),
            )
        self._disk.remove(self._checkpoint(release.round - _KEPT))

    def commit(self, release: Release, vector: Vector, state: State) -> None:
        """Make a round durable: checkpoint file first, then its row."""
        raw = _pack(vector, state)
        self._disk.write(self._checkpoint(release.round), raw)
        with self._db:
            self._db.execute(
                "INSERT INTO rounds VALUES (?, ?, ?)",
                (release.round, sha256_hex(raw), canonical_bytes(asdict(release)).decode()),
            )
        self._disk.remove(self._checkpoint(release.round - _KEPT))

    def keep_update(self, round: int, site: str, reply: Sealed) -> None:
        """Write an admitted reply to disk, where it waits for its turn and for the auditor."""
        header, payload = self._kept(round, site)
        self._disk.write(payload, reply.payload)
        self._disk.write(header, reply.header, b"\n", reply.signature.hex().encode())

    def kept_update(self, round: int, site: str) -> Sealed | None:
        """Return an update that was kept before, as it was signed, or None without a whole one."""
        header, payload = (self._disk.read(path) for path in self._kept(round, site))
        if header is None or payload is None:
            return None
        text, _, signature = header.rpartition(b"\n")
        try:
            return Sealed(header=text, signature=bytes.fromhex(signature.decode()), payload=payload)
        except ValueError:
            return None

    def kept_payload(self, round: int, site: str) -> bytes:
        """Return the payload of an update that was kept before; empty where it is gone."""
        return self._disk.read(self._kept(round, site)[1]) or b""

    def close(self) -> None:
        """Close the database."""
        self._db.close()

    def _checkpoint(self, round: int) -> Path:
        return self._folder / f"round-{round:06d}.safetensors"

    def _kept(self, round: int, site: str) -> tuple[Path, Path]:
        folder = self._updates / f"round-{round:06d}"
        return folder / f"{site}.header", folder / f"{site}.payload"

    def _get(self, key: str) -> str | None:
        row = self._db.execute("SELECT value FROM run WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def _put(self, **values: str) -> None:
        with self._db:
            self._db.executemany("INSERT INTO run VALUES (?, ?)", values.items())


def _pack(vector: Vector, state: State) -> bytes:
    tensors: dict[str, Any] = {"vector": vector}
    return save(tensors | {f"state.{name}": np.asarray(value) for name, value in state.items()})


def _check_chain(history: list[Release]) -> None:
    """Raise ``InvalidInput`` unless each round follows from the one before it."""
    for number, release in enumerate(history):
        follows = number == 0 or release.prev_sha256 == history[number - 1].model_sha256
        if release.round != number + 1 or not follows:
            raise InvalidInput(
                f"the rounds of this run do not follow from each other at round {number + 1}",
                why="its database was changed or damaged",
                cure="restore the run's folder from a backup",
            )


@contextmanager
def _readable() -> Generator[None]:
    """Turn what SQLite says of a damaged file into one clear error; a full disk is none."""
    try:
        yield
    except sqlite3.OperationalError:
        raise
    except (sqlite3.DatabaseError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            "the database of this run's rounds is damaged",
            why=type(error).__name__,
            cure="restore the run's folder from a backup",
        ) from error


def _release(values: dict[str, Any]) -> Release:
    values["sites"] = tuple(values["sites"])
    values["refused"] = tuple((site, code) for site, code in values["refused"])
    values["late"] = tuple(values["late"])
    return Release(**values)

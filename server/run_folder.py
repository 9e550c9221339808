"""The folder of one run: made, locked against a second process, resumed; simulated or real."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ..core.errors import InvalidInput, MissingInput, NotAvailable, OutputExists
from ..core.files import write_atomic
from ..core.plan import Plan
from ..core.plan_file import write_plan
from .out_folder import nameable
from .result import FILE

_BEFORE_ANYTHING = frozenset((".lock", "log.jsonl", "plan.toml", "stages"))
"""What a run's folder holds while nothing but the plan has been read."""


@contextmanager
def workspace(folder: Path, plan: Plan, *, identity: str, resume: bool) -> Generator[Path]:
    """Hold ``folder`` for one run; raises ``OutputExists`` when it may not be used.

    A folder with anything in it is refused without ``resume``; one that another process is
    running in, or that began as another run than ``identity``, is refused always.
    """
    with nameable(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if not resume and any(folder.iterdir()):
        raise OutputExists(
            f"{folder} is not empty",
            why="a run never overwrites another",
            cure="choose another --out, or --resume the run that it holds",
        )
    fresh = not any(folder.iterdir())
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise OutputExists(
            f"another process is running in {folder}",
            why="two writers would spend the same budget twice",
            cure="wait for it, or choose another --out",
        ) from None
    try:
        _same_run(folder, identity)
        if not (folder / "plan.toml").is_file():
            write_atomic(folder / "plan.toml", write_plan(plan).encode())
        yield folder
    except (InvalidInput, MissingInput, NotAvailable):
        lock.release()
        if fresh:
            _undo(folder)
        raise
    finally:
        lock.release()


def _undo(folder: Path) -> None:
    """Leave an empty folder where a mistake ended a run that had begun nothing: it can be mended.

    Where a ledger or a round has been begun, everything stays.
    """
    if {path.name for path in folder.iterdir()} <= _BEFORE_ANYTHING:
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _same_run(folder: Path, identity: str) -> None:
    begun = load_stage(folder, "begun")
    if begun is None:
        save_stage(folder, "begun", {"identity": identity})
    elif begun["identity"] != identity:
        raise OutputExists(
            f"{folder} holds the run of another plan",
            why="a run continues under the plan, seed and objects that it began with",
            cure="resume with the same plan and flags, or choose another --out",
        )


def is_finished(folder: Path) -> bool:
    """Return whether the run in ``folder`` has its result."""
    return (folder / FILE).is_file()


def load_stage(folder: Path, stage: str) -> dict[str, Any] | None:
    """Return what a finished stage found, or None when it has to be run (again)."""
    path = folder / "stages" / f"{stage}.json"
    return json.loads(path.read_bytes()) if path.is_file() else None


def save_stage(folder: Path, stage: str, found: Mapping[str, Any]) -> None:
    """Make what a stage found durable."""
    text = json.dumps(found, indent=1, allow_nan=False)
    write_atomic(folder / "stages" / f"{stage}.json", text.encode())

"""The plans of ``collegium demo``: bundled, complete, and the same kind of file as any plan."""

from __future__ import annotations

from importlib import resources

from ..core.errors import UsageError
from ..core.fields import nearest
from ..core.plan import Plan

TASKS = ("digits", "breast-cancer")


def demo_plan(task: str) -> Plan:
    """Return the bundled plan of a demo task; raises ``UsageError`` for an unknown one."""
    if task not in TASKS:
        guess = nearest(task, TASKS)
        raise UsageError(
            f"there is no demo task '{task}'",
            why=f"this version brings {' and '.join(TASKS)}",
            cure=f"did you mean {guess}?" if guess else f"use {TASKS[0]}",
        )
    with resources.as_file(resources.files(f"{__package__}") / "plans" / f"{task}.toml") as path:
        return Plan.load(path)

"""What other packages offer through entry points: models, readers, tasks and strategies.

An entry point is named without the prefix that plans write: ``ours = "our_package:model"`` in the
group ``collegium.models`` is ``plugin:ours`` in a plan. Nothing is imported before it is asked for.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, Literal

from .errors import NotAvailable
from .fields import nearest

Group = Literal["models", "readers", "tasks", "strategies"]
PREFIX = "plugin:"


def is_plugin(name: str) -> bool:
    """Return whether a name of a plan or site file names a plug-in."""
    return name.startswith(PREFIX)


def plugin_names(group: Group) -> tuple[str, ...]:
    """Return what is installed here, as plans write it; nothing is imported."""
    return tuple(sorted(f"{PREFIX}{point.name}" for point in _points(group)))


def load_plugin(group: Group, name: str) -> Any:
    """Return the object that an installed package offers under ``plugin:NAME``.

    Raises ``NotAvailable`` when no package offers it, when two do, or when it cannot be imported.
    """
    found = [point for point in _points(group) if f"{PREFIX}{point.name}" == name]
    if not found:
        known = plugin_names(group)
        guess = nearest(name, known)
        cure = f"did you mean {guess}?" if guess else "install the package that offers it"
        raise NotAvailable(
            f"'{name}' is not installed here",
            why=f"no package offers it as an entry point in collegium.{group}",
            cure=cure,
        )
    if len({point.value for point in found}) > 1:
        raise NotAvailable(
            f"two packages offer '{name}'",
            why="nobody could tell which of them would run",
            cure="remove one of them",
        )
    try:
        return found[0].load()
    except Exception as error:
        raise NotAvailable(
            f"'{name}' cannot be loaded",
            why=f"{type(error).__name__} in {found[0].value}",
            cure="mend or reinstall the package that offers it",
        ) from error


def _points(group: Group) -> list[Any]:
    return list(entry_points(group=f"collegium.{group}"))

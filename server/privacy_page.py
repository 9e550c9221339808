"""privacy.json and privacy.html: a run's privacy statement with its audit, to be signed off."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.errors import InvalidInput
from ..core.files import write_atomic
from . import pages
from .result import read_result

STATEMENT, PAGE, AUDIT = "privacy.json", "privacy.html", "audit.json"


def write_privacy_page(folder: Path) -> Path | None:
    """Write the statement of the finished run in ``folder`` and its page; return the page.

    None, and nothing written, where there is no one statement: privacy off, or several seeds.
    Raises ``MissingInput`` or ``InvalidInput`` when the run or its audit cannot be read.
    """
    values = read_result(folder)
    if values["privacy"] is None or len(values["seeds"]) > 1:
        return None
    privacy = values["privacy"] | {"audit": audit_of(folder) or values["privacy"]["audit"]}
    text = json.dumps(privacy, indent=2, allow_nan=False)
    write_atomic(folder / STATEMENT, text.encode() + b"\n")
    write_atomic(folder / PAGE, render(values | {"privacy": privacy}).encode())
    return folder / PAGE


def audit_of(folder: Path) -> dict[str, Any] | None:
    """Return the content of audit.json, None where no audit was run."""
    path = folder / AUDIT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidInput(f"{path} is not an audit", cure="run `collegium audit` again")
    return found


def render(values: Mapping[str, Any]) -> str:
    """Return the page for the content of a result.json whose privacy holds the audit."""
    privacy: Mapping[str, Any] = values["privacy"]
    return pages.render(
        "privacy.html.j2",
        {
            "r": {"consortium": None, "simulated": True, **values},
            "p": privacy,
            "m": privacy["mechanism"],
            "sites": privacy["epsilon_by_site"],
            "audited": isinstance(privacy["audit"].get("passed"), bool),
        },
    )

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

_VERDICTS = ("failed", "not exercised", "passed")
"""Of one test at several sites the worst is told."""
_LEAKAGE = ("canaries", "claimed_epsilon", "delta", "confidence", "strict", "passed")

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
    """Return what may be told of audit.json, None where no audit was run.

    Whether each test passed, and the canaries' bounds. Statistics and p-values stay: they
    depend on how many records a site has.
    """
    path = folder / AUDIT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    try:
        return _told(found)
    except (TypeError, KeyError):
        raise InvalidInput(
            f"{path} is not an audit of this version", cure="run `collegium audit` again"
        ) from None


def _told(audit: Any) -> dict[str, Any]:
    verdicts: dict[str, set[str]] = {}
    for test in audit["tests"]:
        verdicts.setdefault(test["name"], set()).add(test["verdict"])
    leakage = audit["leakage"]
    return {
        "conformance": "passed" if not _any(verdicts, "failed") else "failed",
        "passed": bool(audit["passed"]),
        "attests": audit["attests"],
        "significance": audit["significance"],
        "tests": {name: _worst(found) for name, found in verdicts.items()},
        "leakage": "not run"
        if leakage is None
        else {key: leakage[key] for key in _LEAKAGE} | {"attacks": leakage["attacks"]},
    }


def _any(verdicts: Mapping[str, set[str]], verdict: str) -> bool:
    return any(verdict in found for found in verdicts.values())


def _worst(found: set[str]) -> str:
    return next((verdict for verdict in _VERDICTS if verdict in found), "not known")


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

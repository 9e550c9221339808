"""The texts in a site's kit: a commented site.toml and a README, written from plan and roster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..core.forms import METRICS
from ..core.plan import Plan
from ..core.roster import Member, Roster, same_institution
from ..core.site_file import DataSection, LedgerSection, SiteLink

FILL_IN = "  # FILL IN"
_ANCHOR = "state/ledger.anchor"


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteWords:
    """What a site.toml says of its own machine; ``data`` None leaves places to fill in."""

    data: DataSection | None = None
    device: str = "auto"
    link: SiteLink = field(default_factory=SiteLink)
    ledger: LedgerSection | None = None


def site_text(
    plan: Plan, roster: Roster, name: str, *, signatures: int, words: SiteWords | None = None
) -> str:
    """Return a site.toml with caps of exactly what the plan needs.

    For a real roster the members' fingerprints are comments and the data are marked FILL IN; for
    a lab roster the fingerprints are filled in.
    """
    own = words or SiteWords()
    anchor = _ANCHOR if roster.lab else ""
    return (
        _environment()
        .get_template("kit_site.toml.j2")
        .render(
            _shared(plan, roster, name)
            | {
                "data": own.data or _Unknown(),
                "fill": lambda value: "" if value else FILL_IN,
                "own": lambda member: _own(member, roster),
                "privacy": plan.privacy,
                "rounds": plan.rounds,
                "steps": plan.rounds.count * plan.rounds.local_steps,
                "model": plan.model.name,
                "sites": len(plan.sites),
                "members": roster.members,
                "signatures": signatures,
                "metrics": METRICS,
                "public_test": plan.evaluation.origin == "public",
                "ledger": own.ledger or LedgerSection(path="ledger/ledger.sqlite", anchor=anchor),
                "device": own.device,
                "link": own.link,
            }
        )
    )


def readme_text(
    plan: Plan, roster: Roster, name: str, *, signatures: int, missing: Mapping[str, int]
) -> str:
    """Return the kit's README; ``missing`` says how many signatures each envelope lacks."""
    short = [
        f"{what} lacks {count} signature{'s' * (count != 1)}"
        for what, count in missing.items()
        if count
    ]
    return (
        _environment()
        .get_template("kit_readme.txt.j2")
        .render(
            _shared(plan, roster, name)
            | {
                "institution": roster.site(name).institution,
                "roster_sha256": roster.digest,
                "address": roster.address,
                "coordinator": roster.coordinator_institution,
                "signatures": signatures,
                "missing": ", ".join(short),
            }
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unknown:
    """Data that only the site knows."""

    asset: str = ""
    reader: str = "csv"
    path: str = ""
    label: str = ""
    unit: str | None = None
    test_share: float = 0.2


def _shared(plan: Plan, roster: Roster, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "consortium": plan.consortium,
        "plan_sha256": plan.digest,
        "lab": roster.lab,
    }


def _own(member: Member, roster: Roster) -> str:
    own = same_institution(member.institution, roster.coordinator_institution)
    return " (runs the coordinator: never counts)" if own else ""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["toml"] = _toml
    return environment


def _toml(value: object) -> str:
    """Return a plain value as TOML; texts are printable, so JSON's quoting is TOML's too."""
    return json.dumps(value, ensure_ascii=False)

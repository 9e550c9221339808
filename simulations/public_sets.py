"""The public sets of a finished run: what it knew them by, and what a file brings instead."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.errors import InvalidInput, MissingInput
from ..core.plan import Plan
from ..data.public import PublicSet
from ..data.public_file import load_public
from ..data.transfer import takes_given
from ..models import registry
from ..server.public_file import read_public
from .records import Records, split_records
from .workspace import load_stage, save_stage

STAGE = "public-sets"


def remember(folder: Path, records: Records) -> None:
    """Keep the digests of a simulation's public sets: its data may change before publishing."""
    found = {"test": records.test.digest, "public": _digest(records.public)}
    if load_stage(folder, STAGE) != found:
        save_stage(folder, STAGE, found)


def public_sets(
    folder: Path,
    plan: Plan,
    values: Mapping[str, Any],
    *,
    test: Path | None,
    transfer: Path | None,
) -> tuple[PublicSet, PublicSet | None]:
    """Return the test part and, where there is one, the transfer set that was given.

    ``test`` and ``transfer`` are files that were typed; without them a run's own public.npz, or
    the sets that a simulation set aside. Those must be what they were during the run: of a data
    set that changed since, other records would be called public. Raises ``InvalidInput``,
    ``MissingInput`` and ``Refused``.
    """
    if transfer is not None and not takes_given(plan):
        raise InvalidInput(
            f"--transfer {transfer.name}",
            why=f"the plan's [edge] transfer is '{plan.edge.transfer}', which is made here",
            cure='leave it out, or agree on a plan with transfer = "public"',
        )
    own = _loaded(plan, test, labels=True) if test else read_public(folder)
    given = _loaded(plan, transfer, labels=False) if transfer else None
    wanted = own is None or (given is None and takes_given(plan))
    if wanted and values["simulated"] and plan.simulation:
        records = _as_then(folder, plan)
        own, given = own or records.test, given or records.public
    if own is None or len(own) == 0 or own.y is None:
        raise MissingInput(
            f"{folder} holds no public test part",
            why="the parity gate compares the small model with the global one on public records",
            cure="name labelled public records: --test FILE.npz (docs/edge.md says how)",
        )
    return own, given


def _as_then(folder: Path, plan: Plan) -> Records:
    """Return a simulation's records; raise ``InvalidInput`` if its public sets are others now."""
    records, known = split_records(plan), load_stage(folder, STAGE)
    now = {"test": records.test.digest, "public": _digest(records.public)}
    if known != now:
        raise InvalidInput(
            "the data set of this run is not what it was"
            if known
            else f"{folder} is of an "
            "earlier version, which did not keep what its public records were",
            why="records that a site trained on could be taken for public ones",
            cure="restore the data set, run again, or give --test and --transfer",
        )
    return records


def _loaded(plan: Plan, path: Path, *, labels: bool) -> PublicSet:
    """Return a file's records as the plan's model reads them; texts become token numbers."""
    found = load_public(path, labels=labels)
    return replace(found, x=registry.encode(plan.model, found.x))


def _digest(found: PublicSet | None) -> str | None:
    return None if found is None else found.digest

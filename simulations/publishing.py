"""Publish the model of a finished run: its plan and vector, public sets, keys, the next version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..client.train import Trainer
from ..core.digest import file_digest
from ..core.errors import InvalidInput, MissingInput, NotAvailable, OutputExists
from ..core.plan import Plan
from ..core.signing import load_private, load_public
from ..edge.edition import Edition
from ..edge.publication import add, highest, require_dated, require_ready
from ..edge.publication_book import beside
from ..edge.since import Field, open_field
from ..models.fitted import build_for
from ..server.models_out import VECTOR_FILE, read_vector_file
from ..server.publish import BUNDLE, PRIVATE_KEY, PUBLIC_KEY, Progress, publish_run, run_key
from ..server.result import read_result
from .public_sets import public_sets
from .records import simulation_seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be published, and how: paths as they were typed.

    ``out`` the new bundle; ``keys`` private keys that sign (none: the run's own); ``transfer``
    and ``test`` public sets as .npz; ``since`` a run or bundle in the field, which the new one
    must not be worse than by more than ``tolerance``; ``to`` a publication folder, ``book`` what
    was signed for it before (none: beside the first key).
    """

    out: Path
    keys: Sequence[Path] = ()
    transfer: Path | None = None
    test: Path | None = None
    since: Path | None = None
    tolerance: float = 0.01
    version: int | None = None
    created: datetime | None = None
    to: Path | None = None
    book: Path | None = None


def publish(folder: Path, wish: Wish, *, progress: Progress | None = None) -> dict[str, Any]:
    """Make a bundle of the finished run in ``folder``; return the ``edge`` entry of its result.

    Raises ``MissingInput`` without a finished run or a public test part, ``OutputExists`` when
    ``out`` holds something, ``NotAvailable`` for a custom run, whose model the plan does not
    describe, ``Refused`` for private records, for a day in the future, for a publication of
    others, and for a model that is worse than the one in the field, and what the edge stage raises.
    """
    values = read_result(folder)
    _require_publishable(folder, values)
    _require_free(wish.out)
    plan = _plan_of(folder, values)
    keys = [load_private(path) for path in wish.keys] or [run_key(folder)]
    book = wish.book or beside(wish.keys[0] if wish.keys else folder / PRIVATE_KEY)
    _require_place(wish, plan, keys)
    torch.set_num_threads(1)
    vector, _ = read_vector_file(folder)
    teacher = Trainer(build_for(plan), plan).load(vector)
    test, given = public_sets(folder, plan, values, test=wish.test, transfer=wish.transfer)
    field = _field(wish.since, keys, simulated=values["simulated"]) if wish.since else None
    edition = Edition(
        keys=keys,
        version=_version(wish, field, plan, book),
        previous=field.digest if field else "",
        created=wish.created,
        field=field,
        tolerance=wish.tolerance,
    )
    found = publish_run(
        plan,
        folder,
        values,
        teacher,
        test,
        seed=simulation_seed(plan),
        given=given,
        out=wish.out,
        edition=edition,
        progress=progress,
    )
    if wish.to is not None and found["verified"]:
        found["published"] = str(add(wish.to, wish.out, keys, book=book))
    return found


def _require_place(wish: Wish, plan: Plan, keys: Sequence[Ed25519PrivateKey]) -> None:
    """Raise before any work what would be refused after all of it."""
    if wish.created is not None:
        require_dated(wish.created)
    if wish.to is not None:
        require_ready(wish.to, plan.consortium, [key.public_key() for key in keys])


def _require_publishable(folder: Path, values: Mapping[str, Any]) -> None:
    seeds = values["seeds"]
    if len(seeds) > 1:
        raise MissingInput(
            f"{folder} holds several runs",
            why="medians are no model",
            cure=f"name one of them, like {folder / 'seeds' / str(seeds[0])}",
        )
    if values["custom"]:
        raise NotAvailable(
            f"the run in {folder} cannot be published from its folder",
            why="its sites, model or strategy were objects that the plan does not describe",
            cure="publish from the program that ran it",
        )
    if file_digest(folder / VECTOR_FILE) != values["model_sha256"]:
        raise InvalidInput(
            f"{folder / VECTOR_FILE} is not the model of this run",
            why="its digest differs from the one in result.json",
            cure="restore the file",
        )


def _require_free(out: Path) -> None:
    try:
        free = not out.exists() or (out.is_dir() and not any(out.iterdir()))
    except OSError as error:  # a name that is too long, a folder of somebody else
        raise MissingInput(f"{out} cannot be opened", why=f"{error.strerror}") from None
    if not free:
        raise OutputExists(
            f"{out} is not empty", why="a bundle never overwrites another", cure="name another"
        )


def _plan_of(folder: Path, values: Mapping[str, Any]) -> Plan:
    plan = Plan.load(folder / "plan.toml")
    if plan.digest != values["plan_sha256"]:
        raise InvalidInput(
            f"{folder / 'plan.toml'} is not the plan of this run",
            why="its digest differs from the one in result.json",
            cure="restore the file",
        )
    return plan


def _field(since: Path, keys: Sequence[Ed25519PrivateKey], *, simulated: bool) -> Field:
    """Return the bundle in the field: a run's, or a bundle of the same signers.

    A run in the field is believed by its own key, which lies beside it.
    """
    own = since / PUBLIC_KEY
    inside = (since / BUNDLE).is_dir()
    trusted = [key.public_key() for key in keys]
    if inside and own.is_file():
        trusted.append(load_public(own))
    return open_field(since / BUNDLE if inside else since, trusted, allow_simulated=simulated)


def _version(wish: Wish, field: Field | None, plan: Plan, book: Path) -> int:
    """Return the version asked for, or one above the field's and the publication's."""
    published = highest(wish.to, book=book, name=plan.consortium) if wish.to else 0
    known = max(field.version if field else 0, published)
    if wish.version is None:
        return known + 1
    if wish.version <= known:
        raise InvalidInput(
            f"version {wish.version}",
            why=f"version {known} is in the field, and devices never go back",
            cure=f"write {known + 1}, or leave --version out",
        )
    return wish.version

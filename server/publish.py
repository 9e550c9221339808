"""From a finished run to a signed bundle: teacher, public sets, privacy statement, lineage."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from ..core.errors import InvalidInput
from ..core.files import write_atomic
from ..core.plan import Plan
from ..core.signing import load_or_create, save_public
from ..data.public import PublicSet
from ..data.transfer import transfer_set
from ..edge.stage import Edition, Statement, make_bundle
from ..edge.text_numbers import tokens_of
from ..edge.timing import Timing, timings_from

log = logging.getLogger(__name__)

BUNDLE = "bundle"
PUBLIC_KEY = Path("keys") / "bundle.pub"
PRIVATE_KEY = Path("keys") / "private" / "bundle.pem"
TIMINGS = Path("stages") / "edge-timings.json"
AUDIT = "audit.json"

Progress = Callable[[str, float], None]


def run_key(folder: Path) -> Ed25519PrivateKey:
    """Return the run's own signing key, made where there is none; its public half lies beside."""
    private = load_or_create(folder / PRIVATE_KEY)
    save_public(private.public_key(), folder / PUBLIC_KEY)
    return private


def publish_run(
    plan: Plan,
    folder: Path,
    values: Mapping[str, Any],
    teacher: nn.Module,
    test: PublicSet,
    *,
    seed: int,
    given: PublicSet | None = None,
    out: Path | None = None,
    edition: Edition | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Distil, export, quantize, gate, sign and verify; return the ``edge`` entry of result.json.

    ``teacher`` is the global model, ``values`` the run's result so far, and ``given`` the public
    set for a plan whose transfer set comes from outside. The bundle goes to ``out`` (default:
    the run's ``bundle/``), by default as version 1, signed with a key made in the run. What was
    timed is kept in the run: published again, the same inputs give the same bytes. Raises
    ``Refused`` for private data, and what the edge stage raises.
    """
    found = make_bundle(
        teacher,
        plan=plan,
        transfer=transfer_set(plan, seed=seed, given=given, tokens=tokens_of(plan.model)),
        test=test,
        statement=Statement(
            privacy=dict(values["privacy"] or {"guarantee": "none: privacy was switched off"}),
            lineage=_lineage(plan, values),
            global_bytes=int(values["global_bytes"]),
            simulated=bool(values["simulated"]),
            custom=bool(values["custom"]),
            audit=_audit(folder, values["model_sha256"]),
        ),
        edition=edition or Edition(keys=[run_key(folder)]),
        out=out or folder / BUNDLE,
        seed=seed,
        known=_timings(folder),
        progress=progress,
    )
    entry = asdict(found)
    _keep_timings(folder, entry.pop("timings"))
    return entry


def _timings(folder: Path) -> dict[str, Timing] | None:
    path = folder / TIMINGS
    if not path.is_file():
        return None
    try:
        return timings_from(json.loads(path.read_bytes()))
    except ValueError:
        raise InvalidInput(
            f"{path} cannot be read", cure="delete it: the candidates are timed again"
        ) from None


def _keep_timings(folder: Path, timings: Mapping[str, Any]) -> None:
    """Add what was timed; a run on a read-only disk is published all the same."""
    known = {digest: timing.row() for digest, timing in (_timings(folder) or {}).items()}
    text = json.dumps(known | dict(timings), indent=1, sort_keys=True)
    try:
        write_atomic(folder / TIMINGS, text.encode())
    except OSError as error:
        log.warning("the timings were not kept: %s", error.strerror)


def _audit(folder: Path, model_sha256: str) -> Mapping[str, Any] | None:
    """Return the run's audit, None without one; raise ``InvalidInput`` for another model's."""
    path = folder / AUDIT
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict) or found.get("model_sha256") != model_sha256:
        raise InvalidInput(
            f"{path} is no audit of this run's model",
            why="the bundle would quote it",
            cure="run `collegium audit` on this run again, or move the file away",
        )
    return found


def _lineage(plan: Plan, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the bundle says about where it comes from."""
    privacy = values["privacy"] or {}
    return {
        "consortium": plan.consortium,
        "plan_sha256": values["plan_sha256"],
        "model": "custom" if values["custom"] else plan.model.name,
        "model_sha256": values["model_sha256"],
        "rounds": plan.rounds.count,
        "ledger_heads": {
            name: site["ledger_head"] for name, site in privacy.get("epsilon_by_site", {}).items()
        },
    }

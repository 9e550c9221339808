"""From a finished run to a signed bundle: teacher, public sets, privacy statement, lineage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from ..core.plan import Plan
from ..core.signing import load_or_create, load_private, save_public
from ..data.public import PublicSet
from ..data.transfer import transfer_set
from ..edge.stage import make_bundle

BUNDLE = "bundle"
PUBLIC_KEY = Path("keys") / "bundle.pub"
PRIVATE_KEY = Path("keys") / "private" / "bundle.pem"

Progress = Callable[[str, float], None]


def publish_run(
    plan: Plan,
    folder: Path,
    values: Mapping[str, Any],
    teacher: nn.Module,
    test: PublicSet,
    *,
    simulated: bool,
    seed: int,
    out: Path | None = None,
    key: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Distil, export, quantize, gate, sign and verify; return the ``edge`` entry of result.json.

    ``teacher`` is the global model and ``values`` the run's result so far. The bundle goes to
    ``out`` (default: the run's ``bundle/``), signed with ``key`` (default: made in the run).
    Raises ``GateFailed`` when no candidate passes, ``Refused`` for private data.
    """
    private = load_private(key) if key else load_or_create(folder / PRIVATE_KEY)
    if key is None:
        save_public(private.public_key(), folder / PUBLIC_KEY)
    found = make_bundle(
        teacher,
        plan=plan,
        transfer=transfer_set(plan, seed=seed),
        test=test,
        privacy=dict(values["privacy"] or {"guarantee": "none: privacy was switched off"}),
        lineage=_lineage(plan, values),
        key=private,
        out=out or folder / BUNDLE,
        global_bytes=int(values["global_bytes"]),
        simulated=simulated,
        seed=seed,
        progress=progress,
    )
    return asdict(found)


def _lineage(plan: Plan, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the bundle says about where it comes from."""
    privacy = values["privacy"] or {}
    return {
        "consortium": plan.consortium,
        "plan_sha256": values["plan_sha256"],
        "model": plan.model.name,
        "model_sha256": values["model_sha256"],
        "rounds": plan.rounds.count,
        "ledger_heads": {
            name: site["ledger_head"] for name, site in privacy.get("epsilon_by_site", {}).items()
        },
    }

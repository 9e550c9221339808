"""What may come in to a site and what may go out: the same checks, on both sides of training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..core.digest import sha256_hex
from ..core.errors import ACCEPT, Verdict, refuse
from ..core.layout import Layout, Vector
from ..core.messages import Invitation
from ..privacy.ledger import Ledger


def read_base(
    invitation: Invitation,
    payload: bytes,
    layout: Layout,
    *,
    open_sha256: str,
    norm_bound: float,
    constants: int = 0,
    fault: Callable[[Vector], str] = lambda _: "",
) -> tuple[Verdict, Vector]:
    """Return the base vector (d + e,) of an invitation, or the code under which it is refused.

    ``layout`` is that of the d coordinates that train; after them come e = ``constants`` that
    were fitted, whose ``fault`` is looked at last. Checked in order: layout, byte length, digest,
    round 1 equal to the pinned open model in what trains, finite, norm of that at most
    ``norm_bound`` (how far the rounds so far can have led), and the constants.
    """
    nothing = np.zeros(0, dtype=np.float32)
    if invitation.layout != layout.digest:
        return refuse("layout", "the coordinator trains another set of parameters"), nothing
    if len(payload) != 4 * (layout.size + constants):
        return refuse("shape", "the base model has another number of coordinates"), nothing
    if sha256_hex(payload) != invitation.base_sha256:
        return refuse("base", "the base model is not the one that was announced"), nothing
    if invitation.round == 1 and sha256_hex(payload[: 4 * layout.size]) != open_sha256:
        return refuse("base", "the first round does not start from the pinned model"), nothing
    vector = np.frombuffer(payload, dtype="<f4").astype(np.float32, copy=False)
    if not np.isfinite(vector).all():
        return refuse("nonfinite", "the base model holds NaN or infinite values"), nothing
    if float(np.linalg.norm(vector[: layout.size].astype(np.float64))) > norm_bound:
        return refuse("norm", "the base model is further away than the rounds can lead"), nothing
    if wrong := fault(vector[layout.size :]):
        return refuse("base", f"{wrong} is not what the plan's statistics can give"), nothing
    return ACCEPT, vector


def may_answer(
    asked: Invitation, site: str, plan_digest: str, ledger: Ledger, *, now: float
) -> Verdict:
    """Return whether this is a question to this site, of its plan, in time, from who knows it.

    ``now`` is in seconds since the epoch. A coordinator must say the newest head that it has
    seen of the ledger: else one that was restored without its anchor would answer anew.
    """
    if asked.site != site:
        return refuse("roster", "the invitation names another site")
    if asked.plan != plan_digest:
        return refuse("plan", "the invitation names another plan")
    if now > asked.deadline:
        return refuse("deadline", "the round is already over")
    seen = asked.site_ledger_head
    if seen and not ledger.knows(seen):
        return refuse("ledger", "the coordinator has seen entries that are lost here")
    if not seen and answered_another(ledger, asked):
        return refuse("ledger", "the coordinator does not say what it has seen here")
    return ACCEPT


def answered_another(ledger: Ledger, invitation: Invitation) -> bool:
    """Return whether this job has had another answer: its head must be countersigned since."""
    own = (invitation.round, invitation.attempt)
    return any(
        entry.kind == "reserve"
        and entry.job == invitation.job
        and (entry.round, entry.attempt) != own
        for entry in ledger.entries()
    )


def same_base(ledger: Ledger, invitation: Invitation) -> bool:
    """Return whether this attempt, where it was charged before, was charged for this base model."""
    own = (invitation.job, invitation.round, invitation.attempt)
    return all(
        entry.base_sha256 == invitation.base_sha256
        for entry in ledger.entries()
        if entry.kind == "reserve" and (entry.job, entry.round, entry.attempt) == own
    )


def may_leave(vector: Vector, layout: Layout, norm_bound: float) -> Verdict:
    """Return whether an update is exactly the declared vector, finite and within its bound."""
    if vector.shape != (layout.size,) or vector.dtype != np.float32:
        return refuse("internal", "the update is not the declared vector")
    if not np.isfinite(vector).all():
        return refuse("internal", "the update is not finite")
    if float(np.linalg.norm(vector.astype(np.float64))) > norm_bound:
        return refuse("internal", "the update is larger than clipping and noise allow")
    return ACCEPT

"""Why a run stops before its last round, as the error that its people read."""

from __future__ import annotations

from ..core.errors import Interrupted, Refused
from . import rounds

_STOPS = {
    "no-updates": (
        Refused,
        "no site's update was admitted, so there is nothing to aggregate",
        "look at the reason codes; --resume goes on once the sites take part. A folder that was"
        " restored may be an older copy of the run: then restore the newest",
    ),
    "older": (
        Refused,
        "this folder is an older copy of the run: the sites have gone on from another model, and"
        " answering again would charge them twice",
        "restore the newest copy of the run's folder, or begin a new run in another --out",
    ),
}


def stop(action: rounds.Stop) -> None:
    """Raise ``Interrupted`` (resumable) or ``Refused`` for what the engine has decided."""
    kind, why, cure = _STOPS.get(
        action.code,
        (
            Interrupted,
            "fewer sites answered than the plan's quorum asks for",
            "--resume continues from the last durable round",
        ),
    )
    raise kind(f"the run stopped: {action.reason}", why=why, cure=cure)

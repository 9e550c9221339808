"""A site that cannot answer says so by a code of a closed list, never in an exception's words."""

from __future__ import annotations

import logging
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.errors import CollegiumError, OverBudget, Verdict, refuse
from ..core.messages import BadMessage, Decline, Invitation, Sealed
from .halt import Halt, OtherBase

logger = logging.getLogger(__name__)


def or_decline(
    asked: Invitation,
    answer: Callable[[], Sealed | Verdict],
    *,
    site: str,
    key: Ed25519PrivateKey,
) -> Sealed:
    """Return the signed answer, or a decline with the code of what stood against it.

    What an exception says stays in the site's own log: it may hold a path or a value.
    """
    try:
        found = answer()
        if isinstance(found, Sealed):
            logger.info("round %d, attempt %d: ok", asked.round, asked.attempt)
            return found
        verdict = found
    except Halt as halt:
        verdict = refuse(halt.code, "stopped between two steps; nothing has left")
    except OverBudget as error:
        verdict = refuse("budget", str(error))
    except OtherBase:
        verdict = refuse("base", "this attempt belongs to another base model")
    except (CollegiumError, BadMessage) as error:
        verdict = refuse("internal", str(error))
    except Exception:
        logger.exception("site %s failed in round %d", site, asked.round)
        verdict = refuse("internal", "see this site's own log")
    why = (verdict.code, verdict.reason)
    logger.warning("site %s sits round %d out: %s (%s)", site, asked.round, *why)
    return Decline(
        job=asked.job, site=site, round=asked.round, attempt=asked.attempt, code=verdict.code
    ).seal(key)

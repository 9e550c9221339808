"""parity.json: all candidates, the rule, the limits, the machine, and what was not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..core.errors import InvalidInput
from .choosing import remark, rule_for
from .parity_gate import Limits, Parity
from .parity_intervals import METHODS
from .timing import Timing

NOT_RUN = "not run"
_LEAKAGE = ("canaries", "claimed_epsilon", "delta", "confidence", "strict", "passed")
_ATTACK = ("one_run", "f_dp", "refuted", "gdp", "auroc", "contradicts_claim")


def parity_report(
    rows: Sequence[Parity],
    chosen: Parity,
    limits: Limits,
    *,
    wanted: str,
    prefer: str,
    target: str = "here",
    sets: Mapping[str, Any],
    timings: Mapping[str, Timing],
    audit: Mapping[str, Any] | None = None,
    teacher: Mapping[str, float] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return parity.json as plain values; the same arguments give the same report.

    ``wanted``, ``prefer`` and ``target`` are the plan's words in [edge],
    ``sets`` are the sets by use (``Inputs.origins``), ``timings`` those of the rows,
    ``teacher`` the global model's figures on the same records, ``audit`` the run's audit.json;
    ``facts`` are added as they are (student, parameters).
    """
    own = {row.sha256: timings[row.sha256] for row in rows if row.sha256 in timings}
    machines = [dict(timing.machine) for timing in own.values()]
    return {
        "schema": 1,
        "rule": rule_for(wanted, prefer, target),
        "wanted": wanted,
        "prefer": prefer,
        "target": target,
        "chosen": chosen.recipe,
        "remark": remark(chosen, wanted, prefer, target),
        "limits": limits.row(),
        "teacher": dict(teacher or {}),
        "candidates": [row.row() for row in rows],
        "undefined": undefined(rows),
        "intervals": dict(METHODS),
        "sets": dict(sets),
        "timing": {
            "method": "thread CPU time of one answer to one record, one thread, interleaved blocks",
            "blocks": {row.recipe: _blocks(own[row.sha256]) for row in rows if row.sha256 in own},
        },
        "machine": machines[0] if machines else {},
        "leakage_audit": leakage_quote(audit),
        **(facts or {}),
    }


def undefined(rows: Sequence[Parity]) -> list[str]:
    """Return, in words, which figures are undefined on this test part and so gate nothing."""
    told: list[str] = []
    if any(row.accuracy is None for row in rows):
        told.append("accuracy, its change and figures by class: the test part has no labels")
    if any(row.auc is None for row in rows):
        told.append("AUC: it needs labels, and a record of every class among them")
    elif any(row.auc_delta is None for row in rows):
        told.append("change of AUC: the global model's logits are not known, its answers alone are")
    return told


def leakage_quote(audit: Mapping[str, Any] | None) -> str | dict[str, Any]:
    """Return what may be told of an audit's canaries: bounds and verdict, or 'not run'.

    Statistics of the conformance tests stay with the run: they depend on how many records a site
    has. ``audit`` is audit.json, or what the privacy page tells of it. Raises ``InvalidInput``
    for anything else.
    """
    found = None if audit is None else audit.get("leakage", NOT_RUN)
    if found is None or found == NOT_RUN:
        return NOT_RUN
    try:
        attacks = {
            str(name): {key: attack[key] for key in _ATTACK if key in attack}
            for name, attack in found["attacks"].items()
        }
        return {key: found[key] for key in _LEAKAGE} | {"attacks": attacks}
    except (AttributeError, KeyError, TypeError):
        raise InvalidInput(
            "the audit of this run is not of this version",
            why="it does not say what its canaries found",
            cure="run `collegium audit` again",
        ) from None


def _blocks(timing: Timing) -> list[int]:
    """Return how many blocks there were, and how many calls were in each."""
    return [timing.blocks, timing.calls]

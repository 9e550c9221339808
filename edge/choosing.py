"""Which candidate ships: the fastest or the smallest of those that passed, by a rule in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..core.errors import GateFailed
from .parity_gate import Parity

LEAST_TOLERANCE, MOST_TOLERANCE = 0.02, 0.10  # relative: what noise may excuse
AUTO = "auto"
SPEED = (
    "of the candidates that pass the gate the fastest, and none slower than fp32; two are equally "
    "fast when the median of their ratio, over interleaved blocks, is within its measured noise "
    f"(half the interquartile range, at least {LEAST_TOLERANCE:.0%}, at most "
    f"{MOST_TOLERANCE:.0%}), and then the smaller file ships"
)
SIZE = "of the candidates that pass the gate the smallest file, however fast"
TIE = "; of files of one size the faster, then the one that follows its own fp32 more often"
RULES: Mapping[str, str] = MappingProxyType({"speed": SPEED + TIE, "size": SIZE + TIE})
"""The rule by which auto chooses, by [edge] prefer."""
BY_NAME = "the recipe that the plan names, if it passes the gate, however fast"


def choose(rows: Sequence[Parity], wanted: str = AUTO, prefer: str = "speed") -> Parity:
    """Return the candidate that ships: by ``RULES[prefer]``, or the ``wanted`` one if it passes.

    The first row is fp32. Raises ``GateFailed`` when none may ship.
    """
    passed = [row for row in rows if row.verdict.ok and wanted in (AUTO, row.recipe)]
    if wanted == AUTO and prefer == "speed":
        passed = _as_fast_as_the_fastest([row for row in passed if not is_slower(row)])
    if not passed:
        raise GateFailed(
            "no edge candidate passed the parity gate",
            why="; ".join(f"{row.recipe}: {_why_not(row, wanted)}" for row in rows),
            cure="use a larger student or transfer set, or other limits in [edge]",
        )
    least = min(row.size_bytes for row in passed)
    smallest = _as_fast_as_the_fastest([row for row in passed if row.size_bytes == least])
    return max(smallest, key=lambda row: row.fidelity)


def rule_for(wanted: str, prefer: str) -> str:
    """Return the rule that ``choose`` follows, in words."""
    return RULES[prefer] if wanted == AUTO else BY_NAME


def is_slower(row: Parity) -> bool:
    """Return whether a candidate is slower than fp32 by more than the measured noise."""
    return row.latency_ratio > 1 + tolerance(row)


def tolerance(row: Parity) -> float:
    """Return the relative difference in time that is noise for this candidate."""
    return min(max(row.latency_noise, LEAST_TOLERANCE), MOST_TOLERANCE)


def remark(row: Parity, wanted: str, prefer: str) -> str:
    """Return what must be said of a choice that is slower than fp32, '' for any other."""
    if not is_slower(row):
        return ""
    reason = "the plan names it" if wanted != AUTO else f'the plan says prefer = "{prefer}"'
    return f"takes {row.latency_ratio:.2f} times the CPU time of fp32; it ships because {reason}"


def _as_fast_as_the_fastest(rows: Sequence[Parity]) -> list[Parity]:
    if not rows:
        return []
    first = min(rows, key=lambda row: row.latency_ratio)
    return [
        row
        for row in rows
        if row.latency_ratio <= first.latency_ratio * (1 + max(tolerance(row), tolerance(first)))
    ]


def _why_not(row: Parity, wanted: str) -> str:
    if row.verdict.reason:
        return row.verdict.reason
    if wanted not in (AUTO, row.recipe):
        return "not the recipe that the plan names"
    return f"too slow: {row.latency_ratio:.2f} times fp32's CPU time"

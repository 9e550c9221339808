"""Which candidate ships: the fastest or the smallest of those that passed, by a rule in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..core.errors import GateFailed
from .parity_gate import Parity
from .quantize_target import runs_here

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
ELSEWHERE = (
    "of the candidates that pass the gate the smallest file: the devices' processor is not this "
    "machine's, so that no time measured here excludes one; of files of one size the one that "
    "follows its own fp32 more often"
)
BY_NAME = "the recipe that the plan names, if it passes the gate, however fast"


def choose(
    rows: Sequence[Parity], wanted: str = AUTO, prefer: str = "speed", target: str = "here"
) -> Parity:
    """Return the candidate that ships: by ``RULES[prefer]``, or the ``wanted`` one if it passes.

    The first row is fp32; ``target`` is the devices' processor: by ``ELSEWHERE`` where it is not
    this machine's. Raises ``GateFailed`` when none may ship.
    """
    passed = [row for row in rows if row.verdict.ok and wanted in (AUTO, row.recipe)]
    here = runs_here(target)
    if here and wanted == AUTO and prefer == "speed":
        passed = _as_fast_as_the_fastest([row for row in passed if not is_slower(row)])
    if not passed:
        raise GateFailed(
            "no edge candidate passed the parity gate",
            why="; ".join(f"{row.recipe}: {_why_not(row, wanted)}" for row in rows),
            cure="use a larger student or transfer set, or other limits in [edge]",
        )
    least = min(row.size_bytes for row in passed)
    smallest = [row for row in passed if row.size_bytes == least]
    if here:
        smallest = _as_fast_as_the_fastest(smallest)
    return max(smallest, key=lambda row: row.fidelity)


def rule_for(wanted: str, prefer: str, target: str = "here") -> str:
    """Return the rule that ``choose`` follows, in words."""
    if wanted != AUTO:
        return BY_NAME
    return RULES[prefer] if runs_here(target) else ELSEWHERE


def is_slower(row: Parity) -> bool:
    """Return whether a candidate is slower than fp32 by more than the measured noise."""
    return row.latency_ratio > 1 + tolerance(row)


def tolerance(row: Parity) -> float:
    """Return the relative difference in time that is noise for this candidate."""
    return min(max(row.latency_noise, LEAST_TOLERANCE), MOST_TOLERANCE)


def remark(row: Parity, wanted: str, prefer: str, target: str = "here") -> str:
    """Return what must be said of a choice that is slower than fp32 or was not timed where it runs.

    '' for any other.
    """
    if not runs_here(target):
        return (
            f"it is for {target} processors, and all times are those of the publisher's, which is "
            "another: they excluded no candidate"
        )
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

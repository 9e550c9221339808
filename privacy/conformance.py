"""Does the running system do what its mechanism says? Findings and the verdict over them.

Every p-value comes from an exact null distribution; the total significance is divided by the
number of p-values that were computed (Bonferroni). Passing attests honest software: a site that
wants to lie can write its own evidence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

SIGNIFICANCE = 1e-6
"""Probability that an honest run fails any of its tests."""

HONEST_SOFTWARE = "attests honest software, not an honest operator: evidence is the site's own"

Outcome = Literal["passed", "failed", "not exercised"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the audit: what was tested at which site, and how it came out.

    ``p`` is the smallest of ``count`` p-values (None: a deterministic check, whose outcome
    stands). ``statistic`` is for a human and names no record.
    """

    test: str
    site: str
    statistic: str
    outcome: Outcome = "passed"
    p: float | None = None
    count: int = 0
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for audit.json: ``p_value`` is the smallest of ``p_values`` many."""
        return {
            "name": self.test,
            "site": self.site,
            "statistic": self.statistic,
            "p_value": self.p,
            "p_values": self.count,
            "verdict": self.outcome,
            "note": self.note,
        }


def measured(test: str, site: str, statistic: str, ps: Sequence[float]) -> Finding:
    """Return a finding of p-values; its outcome is open until ``judge`` has seen them all."""
    numbers = [0.0 if math.isnan(p) else min(1.0, max(0.0, p)) for p in ps]
    return Finding(test=test, site=site, statistic=statistic, p=min(numbers), count=len(numbers))


def checked(test: str, site: str, statistic: str, *, holds: bool, note: str = "") -> Finding:
    """Return a finding that holds or does not, without chance."""
    outcome: Outcome = "passed" if holds else "failed"
    return Finding(test=test, site=site, statistic=statistic, outcome=outcome, note=note)


def unexercised(test: str, site: str, why: str) -> Finding:
    """Return a finding of a test that had nothing to bite on: never counted as passed."""
    return Finding(test=test, site=site, statistic="-", outcome="not exercised", note=why)


def judge(findings: Sequence[Finding], significance: float = SIGNIFICANCE) -> tuple[Finding, ...]:
    """Return the findings with their outcomes: failed where p < significance / number of ps."""
    level = threshold(findings, significance)
    return tuple(
        finding
        if finding.p is None
        else replace(finding, outcome="failed" if finding.p < level else "passed")
        for finding in findings
    )


def threshold(findings: Sequence[Finding], significance: float = SIGNIFICANCE) -> float:
    """Return the p-value below which one of these tests fails."""
    return significance / max(1, sum(finding.count for finding in findings))


def summary(findings: Sequence[Finding]) -> Mapping[Outcome, int]:
    """Return how many findings came out which way."""
    counts: dict[Outcome, int] = {"passed": 0, "failed": 0, "not exercised": 0}
    for finding in findings:
        counts[finding.outcome] += 1
    return counts

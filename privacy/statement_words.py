"""The fixed sentences of the privacy statement; no number stands here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ..core.mechanism import MechanismSpec
from ..core.messages import CALIBRATION as CALIBRATED
from ..core.messages import EVALUATION as EVALUATED
from ..core.messages import STATISTICS as COUNTED

NOT_COVERED = (
    "facts about the population that hold with or without any single record",
    "the sites' names, public sizes and the time at which they answer",
    "a site's decision to take part, to approve a plan, or to sit a round out",
    "records of the test parts where the plan declares them public: their metrics carry no noise",
    "a person whose records are held by several sites, where the figure of one site is read",
    "data that the open model was trained on before this run, sites' records among them or not",
    "choices of settings that somebody made by looking at these records",
    "distillation or tests on private data: the edge stage refuses them",
    "floating-point artefacts of the noise (Mironov 2012), a theoretical class of attack",
    "software other than this one at a site: the audit attests honest software only",
)

ADVERSARIES = MappingProxyType(
    {
        "coordinator": "sees each site's noised update: bounded by that site's epsilon; assumes"
        " an honest site, nothing of the coordinator or the network",
        "other sites": "see the global model of every round: bounded by the same epsilon; all"
        " other sites may work together, the noise of one honest site is enough for its records",
        "device holder": "sees the released model: post-processing, bounded by the same epsilon",
    }
)

EVALUATION = MappingProxyType(
    {
        "public": "the test parts are declared public: their metrics are exact and not private",
        "private": "each site's test part is told once, as noised counts with their own reserve;"
        " their spend is in epsilon",
    }
)

ROUNDS = "the trainable vector of every round (noised)"
STATISTICS = "noised sums over each site's training records before the first round, once"
CALIBRATION = "noised counts of the final model's scores by class at each site, once"
TOLD = MappingProxyType(
    {
        "public": "metrics on public test parts",
        "private": "noised counts of the released model on each site's test part, once",
    }
)

ONCE = MappingProxyType(
    {
        COUNTED: "common statistics",
        CALIBRATED: "calibration",
        EVALUATED: "private evaluation",
    }
)
"""Names of what a job asks once, by question; with ``BOUNDED``: why no unit can add more."""
BOUNDED = MappingProxyType(
    {
        "common statistics": "each number is cut to its public bounds and each category is one"
        " cell; a unit adds the mean of its records' rows",
        "calibration": "each record is counted in one cell; a unit's records share one count",
        "private evaluation": "each unit adds its share of right answers, at most one, and a count"
        " of one",
    }
)

TUNING = (
    "trials of other settings on the same records count only where they ran through this"
    " ledger; epsilon_total holds those, nothing holds trials made elsewhere"
)
ONE_RUN = "one run on each asset: a schedule that was fixed beforehand"
FILTER = (
    "several runs on one asset, planned with knowledge of earlier outputs: epsilon_total is"
    " the Renyi filter's bound; epsilon_total_fixed would hold had all been fixed beforehand."
    " Which of the bounds applies was itself decided by what was seen, so together they may fail"
    " with up to twice delta"
)


def delta(value: float, largest: int) -> str:
    """Return why this delta: how it stands to the largest site's public size."""
    return (
        f"the bound may fail with probability {value:g}, that is {value * largest:.2g} times one"
        f" over the {largest:,} units of the largest site; at 1 it would mean nothing"
    )


def detection(false_positive_rate: float, true_positive_rate: float) -> str:
    """Return in plain words what a membership test can reach."""
    return (
        "whoever knows all other records and the whole method, and wrongly accuses"
        f" {false_positive_rate:.1%} of the absent, finds at most {true_positive_rate:.1%} of those"
        " who are in"
    )


def sensitivity(once: Mapping[str, MechanismSpec]) -> str:
    """Return how each unit's contribution is bounded, in the rounds and in what is asked once."""
    parts = ["each unit's gradient is clipped to the clip norm over all parameters together"]
    parts += [
        f"{name} (L2 norm at most {asked.clip_norm:.4g}): {BOUNDED[name]}"
        for name, asked in once.items()
    ]
    return "; ".join(parts)


def questions(
    spec: MechanismSpec, reproducible: bool, once: Mapping[str, MechanismSpec]
) -> list[dict[str, Any]]:
    """Return the topics on which NIST SP 800-226 asks to judge a claim, each with its answer."""
    unit = "one patient with all of its records" if spec.unit == "patient" else "one record"
    noise = (
        "the noise of this run can be recomputed from its seed, so nothing is guaranteed"
        if reproducible
        else "the noise is keyed by the operating system's generator at each site"
    )
    pairs = (
        ("What is protected (unit of privacy)?", f"{unit}; neighbours: {spec.relation}"),
        (
            "How strong is the bound (epsilon, delta)?",
            "see the largest epsilon of a site, that of all sites together, and delta",
        ),
        (
            "Where is noise added, and whom must one trust?",
            "locally, at each site, before anything leaves: nobody but the site itself",
        ),
        ("Is the sensitivity bounded, and how?", sensitivity(once)),
        (
            "Do all releases compose into the figure?",
            "yes: every reserve in the site's ledger, before its first gradient, is counted;"
            " 'released' lists everything that left",
        ),
        ("How good is the randomness?", noise),
        (
            "Are there side channels?",
            "timing, approval and participation are outside the guarantee; refusals carry codes"
            " that do not depend on records",
        ),
        (
            "Was the implementation tested?",
            "see 'audit': conformance of what ran, and an estimate of leakage",
        ),
        (
            "Is the data protected where it is held?",
            "records stay at the site; its own measures protect them there",
        ),
        (
            "Whom might the noise treat worse?",
            "small sites and rare classes: read metrics per site and per class",
        ),
    )
    return [{"question": question, "answer": answer} for question, answer in pairs]

"""What is fitted on all sites together beside the training: common statistics, calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .fields import about


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Common statistics of a table's features, counted by all sites before the first round.

    They become constants of the model's first layer. Under privacy every site adds noise to its
    own sums, and its ledger is charged before they are computed.
    """

    normalise: bool = field(
        default=True,
        metadata=about("Give every number of [model.bounds] the common mean 0 and deviation 1"),
    )
    clip: float = field(
        default=3.0,
        metadata=about("Deviations at which a normalised number is cut off", above=0, high=100),
    )
    vocabulary: bool = field(
        default=False,
        metadata=about("Count the categories, and merge those below min_count into none of them"),
    )
    min_count: float = field(
        default=0.0,
        metadata=about(
            "Least noised number of records, over all sites, of a category that is kept", low=0
        ),
    )
    share: float = field(
        default=0.1,
        metadata=about(
            "Share of the plan's epsilon that this step may cost alone; costs add in squares",
            above=0,
            below=1,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Threshold and temperature of a classifier, fitted on all sites' counts after the rounds.

    Each site counts its scores by class in fixed bins (with noise and a ledger entry under
    privacy); the fitted values travel with the model.
    """

    criterion: Literal["none", "accuracy", "youden", "sensitivity"] = field(
        default="youden",
        metadata=about(
            "What the threshold of two classes makes best: right answers; sensitivity plus "
            "specificity; or specificity at a fixed sensitivity"
        ),
    )
    sensitivity: float = field(
        default=0.95,
        metadata=about(
            'Least share of class 1 that is found, for criterion "sensitivity"', above=0, below=1
        ),
    )
    temperature: bool = field(
        default=True, metadata=about("Whether one temperature for all scores is fitted as well")
    )
    bins: int = field(
        default=64, metadata=about("Bins of the histogram of scores", low=4, high=4096)
    )
    held_out: float = field(
        default=0.0,
        metadata=about(
            "Share of each site's training records that calibration alone sees; 0: it uses the "
            "training records, or the site's own validation part where its file has one",
            low=0,
            below=1,
        ),
    )
    share: float = field(
        default=0.1,
        metadata=about(
            "Share of the plan's epsilon that this step may cost alone; costs add in squares",
            above=0,
            below=1,
        ),
    )

"""The consortium's agreement as frozen dataclasses; ``plan_file.py`` reads and writes the TOML."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from . import forms
from .digest import digest_of
from .errors import InvalidPlan
from .fields import about
from .mechanism import Relation, Unit
from .plan_edge import Distillation, EdgeConfig
from .plan_federation import Federation
from .plan_fitting import Calibration, Statistics
from .plan_model import Bounds, ModelRef, Task
from .plan_training import Training

Codec = Literal["float32", "bf16", "int8"]

__all__ = ["Bounds", "EdgeConfig", "ModelRef", "Task"]

MIN_DELTA = 1e-12
"""Below this the accountant's truncated tail would count for more than delta itself."""
MAX_EPSILON = 100.0
"""Above this the likelihood ratio e**epsilon exceeds 1e43: the word privacy no longer applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRef:
    """One institution of the roster.

    ``public_records`` is a public upper bound of the site's size in privacy units (records, or
    patients): normaliser and weight come from it, never from the records. ``weight`` defaults to
    ``public_records``.
    """

    name: str = field(
        metadata=about(
            "Name of the site; also the name of its files",
            fault=forms.name_fault,
            form='a name of a-z, 0-9 and inner hyphens, like "north"',
        )
    )
    public_records: int = field(
        metadata=about(
            "Public upper bound of the site's records (of its patients, where the unit is the "
            "patient); batch normaliser and weight come from it, never from the records",
            low=1,
            high=10**9,
        )
    )
    weight: float | None = field(
        default=None,
        metadata=about(
            "Share of the site in the sum, relative to the others; default public_records",
            above=0,
            high=1e12,
        ),
    )
    public_key: str | None = field(
        default=None,
        metadata=about(
            "Key with which the site signs; real federations only",
            fault=forms.key_fault,
            form='"ed25519:" and the base64 of 32 bytes',
        ),
    )

    @property
    def fold_weight(self) -> float:
        """Return the weight with which this site's updates are folded."""
        return float(self.public_records) if self.weight is None else self.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """How many rounds, what a round costs, and when it closes."""

    count: int = field(metadata=about("Rounds until the release", low=1, high=100_000))
    local_steps: int = field(
        default=1, metadata=about("Noisy steps per round and site", low=1, high=100_000)
    )
    local_learning_rate: float = field(
        default=1.0, metadata=about("Size of each local step", above=0, high=1e6)
    )
    deadline_s: float = field(
        default=600.0,
        metadata=about("Seconds after which a round closes", above=0, high=30 * 86_400.0),
    )
    quorum: float = field(
        default=1.0,
        metadata=about("Share of the roster that must answer in a round", above=0, high=1),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyConfig:
    """How updates combine into the next global model."""

    name: str = field(
        default="mean",
        metadata=about(
            'How updates combine: "mean", "fedadam", or a plug-in',
            form='"mean", "fedadam" or "plugin:NAME"',
        ),
    )
    server_learning_rate: float = field(
        default=1.0,
        metadata=about("Factor on the combined update at the coordinator", above=0, high=1e6),
    )
    iterate_average: float = field(
        default=0.0,
        metadata=about(
            "The released model averages this last share of the rounds; 0 releases the last one",
            low=0,
            below=1,
        ),
    )
    ema: float = field(
        default=0.0,
        metadata=about(
            "Decay of an exponential average of the rounds' models, which is then what is "
            "released; 0 for none",
            low=0,
            below=1,
        ),
    )
    beta1: float = field(
        default=0.9, metadata=about("Decay of the first moment (fedadam alone)", low=0, below=1)
    )
    beta2: float = field(
        default=0.99, metadata=about("Decay of the second moment (fedadam alone)", low=0, below=1)
    )
    tau: float = field(
        default=1e-3,
        metadata=about("Floor of the adaptive step's divisor (fedadam alone)", above=0, high=1e6),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """How an update is encoded on the wire; the simulator uses the same encoding."""

    name: Codec = field(
        default="bf16",
        metadata=about("Encoding of updates on the wire: 4, 2 or about 1 byte per number"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Who may be told how good the model is, and when."""

    origin: Literal["public", "private"] = field(
        default="public",
        metadata=about(
            '"public": the test parts are declared public; "private": noised counts with their '
            "own ledger entry"
        ),
    )
    rounds: str = field(
        default="last",
        metadata=about(
            "After which rounds to evaluate",
            fault=forms.evaluation_fault,
            form='"last" or "every:N"',
        ),
    )

    @property
    def every(self) -> int:
        """Return the round interval of evaluation, 0 for the last round alone."""
        return 0 if self.rounds == "last" else int(self.rounds.removeprefix("every:"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """The privacy of every site in this plan; the noise multiplier is derived, never written."""

    enabled: bool = field(
        default=True,
        metadata=about("false: no noise, and no epsilon anywhere in the result"),
    )
    unit: Unit = field(
        default="record", metadata=about("Whose presence is protected: one record or one patient")
    )
    relation: Relation = field(
        default="add-or-remove-one",
        metadata=about("Which data sets count as neighbours in the guarantee"),
    )
    epsilon: float = field(
        default=3.0,
        metadata=about(
            "Most that each site spends on the whole plan; smaller is more private, above 10 is "
            "weak",
            above=0,
            high=MAX_EPSILON,
        ),
    )
    delta: float = field(
        default=1e-5,
        metadata=about(
            "Probability that the epsilon guarantee fails; below one over the largest site's "
            "public_records",
            low=MIN_DELTA,
            below=1,
        ),
    )
    clip_norm: float = field(
        default=1.0,
        metadata=about("Largest L2 norm of one record's gradient", above=0, high=1e6),
    )
    sampling_rate: float = field(
        default=0.1,
        metadata=about("Probability with which each record enters a step's batch", above=0, high=1),
    )
    batch_cap: int = field(
        default=0,
        metadata=about(
            "Largest batch (truncated Poisson sampling); 0 for plain Poisson sampling",
            low=0,
            high=10**9,
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What the simulator alone reads; real coordinators and sites refuse to honour it."""

    dataset: str = field(
        metadata=about(
            "Data set that plays the sites' records",
            form='a name, like "sklearn:digits", or "files" for those that files names',
        )
    )
    files: str | None = field(
        default=None,
        metadata=about(
            "Where the sites' own files are, relative to the plan: a folder with one NAME.toml "
            "per site, or one site file whose records are dealt to all sites by split",
            form='a path, like "sites" or "records.toml"',
        ),
    )
    split: str = field(
        default="dirichlet:0.5",
        metadata=about(
            "How the data set is split over the sites; a small ALPHA makes sites differ more",
            fault=forms.split_fault,
            form='"iid" or "dirichlet:ALPHA", like "dirichlet:0.5"',
        ),
    )
    seed: int = field(
        default=0,
        metadata=about("Seed of split, sampling and noise", low=0, high=2**53 - 1),
    )
    public_share: float = field(
        default=0.0,
        metadata=about(
            "Share of the data set that no site gets: public records without labels, the transfer "
            "set of [edge]",
            low=0,
            below=1,
        ),
    )
    baselines: bool = field(
        default=True,
        metadata=about("Train local and pooled models for comparison, on scratch ledgers"),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything a consortium agrees on before the first round.

    Raises ``InvalidPlan`` with every problem at once, whether it is built by hand or read
    from a file.
    """

    consortium: str
    sites: tuple[SiteRef, ...]
    model: ModelRef
    rounds: Rounds
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    codec: CodecConfig = field(default_factory=CodecConfig)
    evaluation: Evaluation = field(default_factory=Evaluation)
    privacy: Privacy = field(default_factory=Privacy)
    statistics: Statistics | None = None
    training: Training | None = None
    calibration: Calibration | None = None
    edge: EdgeConfig = field(default_factory=EdgeConfig)
    distillation: Distillation | None = None
    federation: Federation | None = None
    simulation: Simulation | None = None

    def __post_init__(self) -> None:
        from .plan_tables import plan_problems

        if problems := plan_problems(self):
            raise InvalidPlan("Plan(...)", problems)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Read ``plan.toml``; raises ``InvalidPlan`` or ``MissingInput``."""
        from .plan_file import read_plan

        return read_plan(Path(path))

    @property
    def digest(self) -> str:
        """Return the canonical SHA-256 of the agreement: everything but ``[simulation]``."""
        return digest_of("collegium/plan/1", self.agreement())

    def agreement(self) -> dict[str, Any]:
        """Return the plan as plain values without ``[simulation]``: what members sign."""
        from .plan_tables import agreement_of

        return agreement_of(self)

    def site(self, name: str) -> SiteRef:
        """Return the roster entry of that name; raises ``KeyError`` when there is none."""
        for site in self.sites:
            if site.name == name:
                return site
        raise KeyError(name)

"""The consortium's agreement as frozen dataclasses; ``plan_file.py`` reads and writes the TOML."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from .digest import digest_of
from .errors import InvalidPlan
from .mechanism import Relation, Unit

Bounds = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRef:
    """One institution of the roster.

    ``public_records`` is a public upper bound of the site's size, in records: normaliser and
    weight come from it, never from the records. ``weight`` defaults to ``public_records``.
    """

    name: str
    public_records: int
    weight: float | None = None
    public_key: str | None = None

    @property
    def fold_weight(self) -> float:
        """Return the weight with which this site's updates are folded."""
        return float(self.public_records) if self.weight is None else self.weight


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRef:
    """Which open model is fine-tuned, for which task, and what of it trains.

    ``bounds`` (tabular models only) maps each feature, in column order, to its public
    (lowest, highest) value; inputs are clipped to it and scaled to [-1, 1].
    """

    name: str
    task: str
    classes: tuple[str, ...]
    trainable: str = "head"
    weights: str | None = None
    bounds: dict[str, Bounds] = field(default_factory=dict[str, Bounds])


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """How many rounds, what a round costs, and when it closes.

    ``local_steps`` noisy steps per round and site, each of size ``local_learning_rate``;
    ``deadline_s`` seconds; ``quorum`` is the share of the roster that must answer.
    """

    count: int
    local_steps: int = 1
    local_learning_rate: float = 1.0
    deadline_s: float = 600.0
    quorum: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StrategyConfig:
    """How updates combine; the released model averages the last ``iterate_average`` of rounds.

    ``beta1``, ``beta2`` and ``tau`` are read by fedadam alone (Reddi et al. 2021).
    """

    name: str = "mean"
    server_learning_rate: float = 1.0
    iterate_average: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """How an update is encoded on the wire: float32, bf16 or int8."""

    name: str = "bf16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Who may be told how good the model is: ``public`` test parts, or ``private`` noised counts."""

    origin: Literal["public", "private"] = "public"
    rounds: str = "last"

    @property
    def every(self) -> int:
        """Return the round interval of evaluation, 0 for the last round alone."""
        return 0 if self.rounds == "last" else int(self.rounds.removeprefix("every:"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Privacy:
    """The privacy of every site in this plan; the noise multiplier is derived, never written."""

    enabled: bool = True
    unit: Unit = "record"
    relation: Relation = "add-or-remove-one"
    epsilon: float = 3.0
    delta: float = 1e-5
    clip_norm: float = 1.0
    sampling_rate: float = 0.1
    batch_cap: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeConfig:
    """How the released model becomes a small one: student, public transfer set, gate."""

    student: str = "auto"
    transfer: str = "auto"
    recipe: str = "auto"
    min_agreement: float = 0.95
    max_accuracy_drop: float = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What the simulator alone reads: data set, split, seed and whether baselines run."""

    dataset: str
    split: str = "dirichlet:0.5"
    seed: int = 0
    baselines: bool = True


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
    edge: EdgeConfig = field(default_factory=EdgeConfig)
    simulation: Simulation | None = None

    def __post_init__(self) -> None:
        from .plan_checks import plan_problems

        if problems := plan_problems(self):
            raise InvalidPlan("Plan(...)", problems)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read ``plan.toml``; raises ``InvalidPlan`` or ``MissingInput``."""
        from .plan_file import read_plan

        return read_plan(cls, Path(path))

    @property
    def digest(self) -> str:
        """Return the canonical SHA-256 of the agreement: everything but ``[simulation]``."""
        return digest_of("collegium/plan/1", self.agreement())

    def agreement(self) -> dict[str, Any]:
        """Return the plan as plain values without ``[simulation]``: what members sign."""
        values = asdict(self)
        del values["simulation"]
        return values

    def site(self, name: str) -> SiteRef:
        """Return the roster entry of that name; raises ``KeyError`` when there is none."""
        for site in self.sites:
            if site.name == name:
                return site
        raise KeyError(name)

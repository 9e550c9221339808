"""What one noisy step costs: the part of a mechanism that its privacy loss depends on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dp_accounting import dp_event, privacy_accountant

from ..core.errors import InvalidInput
from ..core.mechanism import MechanismSpec, Relation, Unit

Spend = Sequence[tuple[MechanismSpec, int]]
"""Mechanisms that ran (or are reserved), each with its number of noisy steps."""

RELATIONS = {
    "add-or-remove-one": privacy_accountant.NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": privacy_accountant.NeighboringRelation.REPLACE_ONE,
    "replace-special": privacy_accountant.NeighboringRelation.REPLACE_SPECIAL,
}


class Step(NamedTuple):
    """One step of a subsampled Gaussian; ``public_records`` matters with a batch cap alone."""

    noise_multiplier: float
    sampling_rate: float
    batch_cap: int = 0
    public_records: int = 0

    @classmethod
    def of(cls, spec: MechanismSpec) -> Step:
        """Return what a step of this mechanism costs."""
        sizes = (spec.batch_cap, spec.public_records) if spec.batch_cap else (0, 0)
        return cls(spec.noise_multiplier, spec.sampling_rate, *sizes)

    @property
    def event(self) -> dp_event.DpEvent:
        """Return the step as dp-accounting's event."""
        if self.batch_cap:
            return dp_event.TruncatedSubsampledGaussianDpEvent(
                dataset_size=self.public_records,
                sampling_probability=self.sampling_rate,
                truncated_batch_size=self.batch_cap,
                noise_multiplier=self.noise_multiplier,
            )
        return dp_event.PoissonSampledDpEvent(
            self.sampling_rate, dp_event.GaussianDpEvent(self.noise_multiplier)
        )


Steps = tuple[tuple[Step, int], ...]
"""Distinct steps and how often each was taken, sorted: one key per schedule."""


def steps_of(spend: Spend) -> Steps:
    """Return the schedule with equal steps counted together and empty ones left out."""
    counts: dict[Step, int] = {}
    for spec, count in spend:
        step = Step.of(spec)
        counts[step] = counts.get(step, 0) + count
    return tuple(sorted((step, count) for step, count in counts.items() if count > 0))


def relation_of(specs: Iterable[MechanismSpec]) -> Relation:
    """Return the one neighbouring relation; ``InvalidInput`` when units or relations differ.

    An epsilon for records says nothing about patients, and add-or-remove nothing about
    replacing: such rows are refused, never silently added.
    """
    kinds: set[tuple[Unit, Relation]] = {(spec.unit, spec.relation) for spec in specs}
    if len(kinds) > 1:
        raise InvalidInput(
            "mechanisms of different units or neighbouring relations cannot be composed",
            why="their epsilons bound different things: " + ", ".join(map(str, sorted(kinds))),
            cure="keep one unit and relation per data asset",
        )
    return kinds.pop()[1] if kinds else "add-or-remove-one"

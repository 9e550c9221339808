"""What follows the rounds of a run on this machine: figures, baselines, the edge model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..client.train import Trainer
from ..core.errors import InvalidInput, MissingInput, NotAvailable
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..edge.stage import require_ready, skipped
from ..models import registry
from ..models.evaluate import logits
from ..server.models_out import write_whole_model
from ..server.publish import publish_run
from ..server.result import SCHEMA, evaluation_of, history_of, sites_of, versions
from ..server.store import Release
from ..server.survey_result import fitted_entries
from .baselines import run_baselines
from .consortium import ModelFactory
from .figures import figures
from .listener import Listener
from .public_sets import remember
from .records import Records, simulation_seed
from .workspace import load_stage, save_stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What the rounds gave: ``vector`` (d + e,) is what of the released model travels.

    ``fitted`` is what the sites fitted beside the rounds (``server.survey_result``).
    """

    vector: Vector
    model_sha256: str
    reports: Mapping[str, Mapping[str, float]]
    history: Sequence[Release]
    privacy: dict[str, Any] | None
    fitted: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Stages:
    """The stages after the rounds; each is durable before the next begins."""

    plan: Plan
    folder: Path
    factory: ModelFactory
    heard: Listener
    custom: bool = False

    def values(self, records: Records, rounds: Rounds) -> dict[str, Any]:
        """Return the values of result.json that the rounds alone determine."""
        plan, privacy = self.plan, rounds.privacy
        remember(self.folder, records)
        trainer = Trainer(self.factory(), plan, features=records.features)
        found = figures(plan, lambda x: trainer.outputs(rounds.vector, x), records)
        metrics = found.metrics
        size = write_whole_model(self.folder, trainer.load(rounds.vector))
        return {
            "schema": SCHEMA,
            "simulated": True,
            "custom": self.custom,
            "consortium": plan.consortium,
            "dataset": plan.simulation.dataset if plan.simulation and not self.custom else None,
            "model": plan.model.name,
            "task": plan.model.task,
            "plan_sha256": plan.digest,
            "seeds": [simulation_seed(plan)],
            "rounds": plan.rounds.count,
            "versions": versions(),
            "epsilon_budget": plan.privacy.epsilon if privacy else None,
            "sites": sites_of(plan, privacy, rounds.reports),
            "epsilon_max": privacy["epsilon_max"] if privacy else None,
            "epsilon_if_shared": privacy["epsilon_if_shared"] if privacy else None,
            "privacy": privacy,
            "global_bytes": size,
            "global": {
                "accuracy": metrics.get("accuracy"),
                "metrics": metrics,
                "by_site": found.by_site,
            },
            "open_model": self._open_model(records),
            **fitted_entries(plan, rounds.fitted),
            "evaluation": evaluation_of(plan, rounds.reports),
            "history": history_of(rounds.history),
            "model_sha256": rounds.model_sha256,
        }

    def baselines(self, records: Records, specs: Mapping[str, MechanismSpec]) -> dict[str, Any]:
        """Return the ``local`` and ``pooled`` entries, null where nobody asked for them."""
        wanted = self.plan.simulation is not None and self.plan.simulation.baselines
        if not wanted or len(records.test) == 0:
            return {"local": None, "pooled": None, "majority": None}
        if (known := load_stage(self.folder, "baselines")) is not None:
            return known
        self.heard.stage("baselines")
        found = run_baselines(
            self.plan,
            records,
            specs,
            self.factory,
            workers=os.cpu_count() or 1,
            prepare=one_thread,
        ).to_dict()
        save_stage(self.folder, "baselines", found)
        return found

    def require_edge(self, records: Records) -> None:
        """Raise ``InvalidInput`` for an edge stage that could not be run after the last round."""
        if len(records.test) and not skipped(self.plan):
            require_ready(self.plan, self.factory(), records.test, records.public)

    def edge(
        self, values: dict[str, Any], records: Records, vector: Vector
    ) -> dict[str, Any] | None:
        """Return the ``edge`` entry: the model distilled, quantized, gated and signed.

        None where there is none to be made; where it could not be made ``values`` get the reason
        as ``edge_reason``, which ``require_gate`` makes an error.
        """
        if len(records.test) == 0 or skipped(self.plan):
            return None  # nothing public to hold the small model against, or none to be made
        if (known := load_stage(self.folder, "edge")) is not None:
            return known
        self.heard.stage("edge")
        teacher = Trainer(self.factory(), self.plan).load(vector)
        try:
            found = publish_run(
                self.plan,
                self.folder,
                values,
                teacher,
                records.test,
                seed=simulation_seed(self.plan),
                given=records.public,
                progress=self.heard.progress,
            )
        except (InvalidInput, MissingInput, NotAvailable) as error:
            # the rounds are done and paid for: the run is finished, and says what is missing
            values["edge_reason"] = error.message()
            self.heard.note(f"no edge model: {error.message()}")
            return None
        save_stage(self.folder, "edge", found)
        return found

    def _open_model(self, records: Records) -> dict[str, Any] | None:
        if self.custom or records.test.y is None or len(records.test) == 0:
            return None
        model = registry.open_model(self.plan.model)
        if model is None:  # its own head answers other questions
            return None
        metrics = figures(self.plan, lambda x: logits(model, x), records).metrics
        return {"accuracy": metrics.get("accuracy"), "metrics": metrics}


def one_thread() -> None:
    """One torch thread per worker: the sum of a batch does not depend on the machine's load."""
    torch.set_num_threads(1)

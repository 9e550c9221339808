"""``simulate``: a whole plan on one machine, through the same engine, codec and site objects."""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections.abc import Generator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ..client.app import make_app
from ..client.train import Trainer
from ..core.codec import codec
from ..core.errors import Interrupted
from ..core.layout import Vector
from ..core.logs import logging_to
from ..core.plan import Plan
from ..core.plan_file import with_overrides
from ..data.public import PublicSet
from ..data.site_data import SiteData
from ..models import registry
from ..server.admission import Admission
from ..server.app import make_server_app
from ..server.drive import Task
from ..server.models_out import read_vector_file, write_vector_file
from ..server.result import read_result, require_gate, write_result
from ..server.store import Store
from ..server.survey_result import fitted_of
from ..strategies.base import Strategy
from ..strategies.catalog import strategy_for
from ._flwr import context_of
from .consortium import Consortium, ModelFactory, assemble
from .figures import looked_at, measure
from .grid import LocalGrid
from .listener import Listener, RoundCallback
from .reading import require_fit
from .records import Records, split_records
from .resources import ResourceMeter
from .stages import Rounds, Stages, one_thread
from .stated import stated
from .workspace import is_finished, run_identity, workspace

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished run: its folder and every figure of its result.json."""

    folder: Path
    values: dict[str, Any]
    factory: ModelFactory
    plan: Plan

    @property
    def metrics(self) -> dict[str, float]:
        """Return the released model's metrics on the global test part."""
        return self.values["global"]["metrics"]

    @property
    def epsilon_by_site(self) -> dict[str, float | None]:
        """Return what this run spent at each site; None without privacy."""
        return {site["name"]: site["epsilon"] for site in self.values["sites"]}

    @property
    def model(self) -> nn.Module:
        """Return the released model."""
        from ..models.adapters import write_vector
        from ..models.fitted import attach

        vector, layout = read_vector_file(self.folder)
        model = attach(self.factory(), self.plan)
        write_vector(model, layout.names, vector)
        return model.eval()

    def require_gate(self) -> None:
        """Raise ``GateFailed`` unless the edge model of this run passed the plan's gate."""
        require_gate(self.values)

    def report(self, path: str | Path) -> Path:
        """Write the run's report, one self-contained HTML file; return its path.

        Its privacy statement is written beside the run: privacy.json and privacy.html.
        """
        from ..server.privacy_page import write_privacy_page
        from ..server.report import write_report

        write_privacy_page(self.folder)
        return write_report(self.folder, Path(path))


def simulate(
    plan: Plan,
    *,
    sites: Mapping[str, SiteData] | None = None,
    model: ModelFactory | None = None,
    strategy: Strategy | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    seed: int | None = None,
    on_round: RoundCallback | None = None,
    listener: Listener | None = None,
) -> RunResult:
    """Run the plan and return its result; everything is in ``out`` (default: a fresh folder).

    ``sites``, ``model`` and ``strategy`` override the plan and mark the run 'custom, not
    provisionable'. With ``resume`` a missing run is started, an open one continued and a
    finished one left as it is. Noise is seeded: a simulation gives no privacy guarantee.
    Raises ``InvalidInput``, ``OutputExists``, ``Refused`` and ``Interrupted``. An edge model that
    misses the plan's parity gate is no error here: ``result.require_gate()`` makes it one.
    """
    if seed is not None:
        plan = with_overrides(plan, seed=seed)
    custom = any(item is not None for item in (sites, model, strategy))
    factory = model or (lambda: registry.build(plan.model))
    folder = (
        Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="collegium-run-")) / "run"
    )
    heard = listener or Listener(on_round=on_round)
    identity = run_identity(plan, custom=custom)
    with (
        workspace(folder, plan, identity=identity, resume=resume),
        logging_to(folder),
        resumable_disk(folder),
    ):
        if not (resume and is_finished(folder)):
            with ResourceMeter() as meter:
                run = _Run(plan, folder, factory, heard, custom=custom)
                values = run.execute(sites, strategy)
                values["seconds"], values["peak_rss_bytes"] = meter.seconds, meter.peak_rss_bytes
            write_result(folder, values)
        result = RunResult(folder=folder, values=read_result(folder), factory=factory, plan=plan)
        heard.stage("report")
        result.report(folder / "report.html")
    return result


@contextmanager
def resumable_disk(folder: Path) -> Generator[None]:
    """Turn a full or failing disk into a stop that loses nothing: every finished round is kept."""
    try:
        yield
    except (OSError, sqlite3.OperationalError) as error:
        logger.exception("the run's folder could not be read or written")
        raise Interrupted(
            f"{folder} could not be read or written",
            why=getattr(error, "strerror", None) or str(error),
            cure="free some space or mend the disk, then --resume",
        ) from error


class _Run:
    """One simulation's stages; each is durable before the next begins."""

    def __init__(
        self, plan: Plan, folder: Path, factory: ModelFactory, heard: Listener, *, custom: bool
    ) -> None:
        self._plan, self._folder, self._factory = plan, folder, factory
        self._heard, self._custom = heard, custom
        self._workers = min(os.cpu_count() or 1, len(plan.sites))
        self._stages = Stages(plan=plan, folder=folder, factory=factory, heard=heard, custom=custom)

    def execute(
        self, sites: Mapping[str, SiteData] | None, strategy: Strategy | None
    ) -> dict[str, Any]:
        """Return the values of result.json, all but time and memory."""
        plan, heard = self._plan, self._heard
        one_thread()
        self._factory()  # a model that is not here is said before the first record is read
        heard.stage("data")
        records = self._records(sites)
        require_fit(plan, records)
        self._stages.require_edge(records)
        identity = run_identity(plan, custom=self._custom)
        with ExitStack() as open_files:
            store = open_files.enter_context(
                closing(
                    Store(
                        self._folder / "rounds",
                        plan_digest=identity,
                        updates=self._folder / "updates",
                    )
                )
            )
            own = strategy is not None
            consortium = open_files.enter_context(
                closing(
                    assemble(
                        plan,
                        records.by_site,
                        self._factory,
                        self._folder,
                        policies=records.policies,
                        features=records.features,
                        own_strategy=own,
                    )
                )
            )
            heard.started(plan, consortium.specs, store.history())
            vector, reports = self._train(consortium, records, store, strategy)
            rounds = Rounds(
                vector=vector,
                model_sha256=write_vector_file(self._folder, vector, consortium.whole),
                reports=reports,
                history=store.history(),
                fitted=fitted_of(store),
                privacy=stated(plan, consortium, store.job, custom=self._custom),
            )
            values = self._stages.values(records, rounds)
        values |= self._stages.baselines(records, consortium.specs)
        values["edge"] = self._stages.edge(values, records, vector)
        return values

    def _records(self, sites: Mapping[str, SiteData] | None) -> Records:
        if sites is None:
            return split_records(self._plan)
        any_site = next(iter(sites.values()))
        empty = PublicSet(
            name="none", origin="public", x=any_site.test_x[:0], y=any_site.test_y[:0]
        )
        return Records(by_site=sites, test=empty)

    def _train(
        self,
        consortium: Consortium,
        records: Records,
        store: Store,
        strategy: Strategy | None,
    ) -> tuple[Vector, dict[str, dict[str, float]]]:
        """Drive all rounds through ServerApp and ClientApps on the in-process Grid."""
        plan = self._plan
        probe = Trainer(self._factory(), plan, features=records.features)
        seen = looked_at(records, cheap=probe.answers_fast)
        self._heard.stage("rounds")
        job = store.job
        found: list[tuple[Vector, dict[str, dict[str, float]]]] = []

        def spent(_: int) -> dict[str, float]:
            if not plan.privacy.enabled:
                return {}
            return {name: ledger.epsilon(job=job) for name, ledger in consortium.ledgers.items()}

        work = Task(
            plan=plan,
            layout=consortium.layout,
            fitted=consortium.fitted,
            opened=consortium.opened,
            members=consortium.members,
            strategy=strategy or strategy_for(plan),
            admission=Admission(
                layout=consortium.layout,
                codec=codec(plan.codec.name),
                members=consortium.members,
                learning_rate=plan.rounds.local_learning_rate,
            ),
            store=store,
            key=consortium.key,
            evaluate=lambda vector: measure(plan, probe, vector, seen),
            epsilon=spent,
            on_round=self._heard.round_done,
            on_answer=self._heard.answered,
            poll_s=0.0,
        )
        app = make_server_app(work, lambda vector, reports: found.append((vector, reports)))
        with LocalGrid(
            [make_app(site) for site in consortium.sites],
            workers=self._workers,
            prepare=one_thread,
        ) as grid:
            app(grid, context_of(0, 0, len(consortium.sites)))
        return found[0]

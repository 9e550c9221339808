"""Load the package from the checkout when it is not installed; small plans, records, runs."""

import importlib.util
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

if importlib.util.find_spec("collegium") is None:
    root = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "collegium", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["collegium"] = module
    spec.loader.exec_module(module)

if TYPE_CHECKING:
    from collegium.core.plan import Plan
    from collegium.data.site_data import SiteData
    from collegium.server.drive import Drive
    from collegium.server.store import Release

FEATURES = ("age", "dose", "mass")
"""Of the tiny tables in these tests; a linear model of two classes then has d = 8."""


def tiny_plan(
    sites: int = 4,
    *,
    rounds: int = 3,
    public_records: int = 40,
    local_steps: int = 1,
    deadline_s: float = 30.0,
    quorum: float = 1.0,
    codec: str = "float32",
    learning_rate: float = 1.0,
    evaluation: str | Mapping[str, Any] = "last",
    strategy: Mapping[str, Any] | None = None,
    privacy: Mapping[str, Any] | None = None,
    weights: tuple[float, ...] = (),
    records: tuple[int, ...] = (),
    seed: int = 7,
) -> "Plan":
    """Return a plan of a linear model over three features; sites are named s0, s1, ..."""
    from collegium.core import plan as p

    return p.Plan(
        consortium="tests",
        sites=tuple(
            p.SiteRef(
                name=f"s{number}",
                public_records=records[number] if records else public_records,
                weight=weights[number] if weights else None,
            )
            for number in range(sites)
        ),
        model=p.ModelRef(
            name="tabular:linear",
            task="classification",
            classes=("ill", "well"),
            bounds=dict.fromkeys(FEATURES, (-1.0, 1.0)),
        ),
        rounds=p.Rounds(
            count=rounds,
            local_steps=local_steps,
            local_learning_rate=learning_rate,
            deadline_s=deadline_s,
            quorum=quorum,
        ),
        strategy=p.StrategyConfig(**dict(strategy or {})),
        codec=p.CodecConfig(name=codec),  # type: ignore[arg-type]
        evaluation=p.Evaluation(
            **({"rounds": evaluation} if isinstance(evaluation, str) else dict(evaluation))
        ),
        privacy=p.Privacy(
            **{"epsilon": 3.0, "delta": 1e-3, "sampling_rate": 0.5, **dict(privacy or {})}
        ),
        simulation=p.Simulation(dataset="sklearn:breast_cancer", seed=seed, baselines=False),
    )


def tiny_records(plan: "Plan", *, count: int = 24, test: int = 6) -> "dict[str, SiteData]":
    """Return the same few records for every call: the class is the sign of the first feature."""
    from collegium.data.site_data import SiteData

    found: dict[str, SiteData] = {}
    for number, site in enumerate(plan.sites):
        rng = np.random.default_rng([11, number])
        x = rng.uniform(-1, 1, (count + test, len(FEATURES))).astype(np.float32)
        y = (x[:, 0] > 0).astype(np.int64)
        found[site.name] = SiteData(
            asset=f"asset-{site.name}",
            train_x=x[:count],
            train_y=y[:count],
            test_x=x[count:],
            test_y=y[count:],
        )
    return found


@dataclass
class Lab:
    """One consortium in a folder, and its runs on an in-process Grid."""

    plan: "Plan"
    folder: Path
    records: "Mapping[str, SiteData] | None" = None
    answers: list[tuple[int, str, str]] = field(default_factory=list)
    rounds: "list[Release]" = field(default_factory=list)

    def __post_init__(self) -> None:
        from collegium.models import registry
        from collegium.server.store import Store
        from collegium.simulations.consortium import assemble

        self.consortium = assemble(
            self.plan,
            self.records or tiny_records(self.plan),
            lambda: registry.build(self.plan.model),
            self.folder,
        )
        self.sites = {site.name: site for site in self.consortium.sites}
        self.store = Store(
            self.folder / "rounds", plan_digest=self.plan.digest, updates=self.folder / "updates"
        )

    def task(self, **changes: Any) -> Any:
        """Return the drive's task of this consortium."""
        from collegium.core.codec import codec
        from collegium.server.admission import Admission
        from collegium.server.drive import Task
        from collegium.strategies.catalog import strategy_for

        task = Task(
            plan=self.plan,
            layout=self.consortium.layout,
            fitted=self.consortium.fitted,
            opened=self.consortium.opened,
            members=self.consortium.members,
            strategy=strategy_for(self.plan),
            admission=Admission(
                layout=self.consortium.layout,
                codec=codec(self.plan.codec.name),
                members=self.consortium.members,
                learning_rate=self.plan.rounds.local_learning_rate,
            ),
            store=self.store,
            key=self.consortium.key,
            on_answer=lambda *answer: self.answers.append(answer),
            on_round=self.rounds.append,
            poll_s=0.0,
        )
        return replace(task, **changes)

    def run(
        self, wrap: Callable[[str, Any], Any] | None = None, *, workers: int = 2, **changes: Any
    ) -> Any:
        """Drive all rounds with ``wrap(name, app)`` in the place of each site's app."""
        from collegium.client.app import make_app
        from collegium.simulations.grid import LocalGrid

        apps = []
        for name, site in self.sites.items():
            app: Any = make_app(site)
            apps.append(wrap(name, app) if wrap else app)
        with LocalGrid(apps, workers=workers, prepare=one_thread) as grid:
            return self.drive(grid, **changes).run()

    def drive(self, grid: Any, **changes: Any) -> "Drive":
        """Return the drive of this consortium's task on any Grid."""
        from collegium.server.drive import Drive
        from collegium.server.grid_post import GridPost

        return Drive(GridPost(grid), self.task(**changes))

    def reserves(self, site: str) -> int:
        """Return how many reserves stand in a site's ledger."""
        entries = self.consortium.ledgers[site].entries()
        return sum(entry.kind == "reserve" for entry in entries)

    def close(self) -> None:
        """Close ledgers and store."""
        self.consortium.close()
        self.store.close()


def one_thread() -> None:
    """Keep sums of a batch the same on every machine."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_plan() -> "Callable[..., Plan]":
    """The builder of small plans."""
    return tiny_plan


@pytest.fixture(scope="session")
def make_records() -> "Callable[..., dict[str, SiteData]]":
    """The builder of small records."""
    return tiny_records


@pytest.fixture
def make_lab(tmp_path: Path) -> Any:
    """The builder of labs; closes them all at the end."""
    one_thread()
    labs: list[Lab] = []

    def make(plan: "Plan | None" = None, *, folder: str = "run", **options: Any) -> Lab:
        lab = Lab(plan or tiny_plan(), tmp_path / folder, **options)
        labs.append(lab)
        return lab

    yield make
    for lab in labs:
        lab.close()

"""Site files and plans over small files of every kind, and the real data where it is."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.core.site_file import (
    DataSection,
    LedgerSection,
    PolicySection,
    SiteFile,
    SiteSection,
)


@pytest.fixture
def make_site() -> Callable[..., Any]:
    """The builder of site files: a folder, a reader, a path, and any other key of [data]."""

    def make(
        folder: Path, reader: str, path: str, *, plugins: tuple[str, ...] = (), **data: Any
    ) -> SiteFile:
        values = {"asset": "ward", "label": "outcome", "test_share": 0.5} | data
        return SiteFile(
            site=SiteSection(name="s0"),
            data=DataSection(reader=reader, path=path, **values),
            policy=PolicySection(max_epsilon=1, delta=1e-5, plugins=plugins),
            ledger=LedgerSection(path="ledger.sqlite"),
            folder=folder,
        )

    return make


@pytest.fixture
def plan_of(make_plan: Callable[..., Any]) -> Callable[..., Any]:
    """The builder of one-site plans whose model says what records look like."""

    def make(held_out: float | None = None, **model: Any) -> Any:
        from collegium.core.plan_fitting import Calibration

        plan = make_plan(1)
        if model.get("bounds") == {} and not model.get("categories"):
            model.setdefault("name", "torchvision:resnet18")
        calibration = None if held_out is None else Calibration(held_out=held_out)
        return replace(plan, model=replace(plan.model, **model), calibration=calibration)

    return make


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the real data sets, also as $COLLEGIUM_DATA; skips where there is none."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    folder = Path(os.environ.get("COLLEGIUM_DATA") or beside)
    if not (folder / "SHA256SUMS").is_file():
        pytest.skip(f"no real data: COLLEGIUM_DATA is not set and {beside.name} is not there")
    monkeypatch.setenv("COLLEGIUM_DATA", str(folder))
    return folder

"""Records that a lab's sites read are those that the simulator has, of every kind of model."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.client.words import read_records
from collegium.core.plan import Plan
from collegium.data.checks import check
from collegium.data.public import PublicSet
from collegium.data.site_data import SiteData
from collegium.simulations.processes import make_lab, site_file
from collegium.simulations.records import Records

N = 8
RNG = np.random.default_rng(0)
TABLE = np.column_stack([RNG.uniform(0, 9, N), RNG.integers(-1, 2, N)]).astype(np.float32)
TABLE[0, 0] = np.nan
BINARY = np.arange(N) % 2
ONLY: dict[str, Any] = {"bounds": {}, "categories": {}}
CASES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "categories, missing numbers, classes named 1 and 0": (
        {
            "name": "tabular:linear", "bounds": {"age": (0.0, 9.0)}, "missing": "flag",
            "categories": {"sex": ("f", "m")}, "unknown": "other", "classes": ("1", "0"),
        },
        TABLE,
        BINARY,
    ),
    "tokens": (
        ONLY | {"name": "text:hashed", "options": {"tokens": 5.0, "buckets": 16.0}},
        RNG.integers(-1, 16, (N, 5)).astype(np.int32),
        BINARY,
    ),
    "masks": (
        ONLY | {"name": "segmentation:unet", "task": "segmentation", "image": (8, 8, 1)},
        RNG.integers(0, 256, (N, 8, 8, 1)).astype(np.uint8),
        RNG.integers(0, 2, (N, 8, 8)),
    ),
    "targets": (
        {
            "name": "tabular:linear", "bounds": {"age": (0.0, 9.0)}, "task": "regression",
            "classes": (), "target": (0.0, 5.0),
        },
        TABLE[:, :1] * 0 + 1,
        np.linspace(0, 5, N).astype(np.float32),
    ),
}  # fmt: skip
CASES["targets"][1][0] = 2


@pytest.mark.parametrize("case", CASES)
def test_a_lab_s_site_reads_what_the_simulator_dealt(
    tmp_path: Path, make_plan: Callable[..., Plan], case: str
) -> None:
    told, x, y = CASES[case]
    plan = make_plan(2)
    plan = replace(plan, model=replace(plan.model, weights=None, trainable="head", **told))
    by_site = {
        site.name: SiteData(
            asset=f"x/{site.name}", train_x=x[:6], train_y=y[:6], test_x=x[6:], test_y=y[6:],
            train_units=None, test_units=None,
        )
        for site in plan.sites
    }  # fmt: skip
    nothing = PublicSet(name="none", origin="public", x=x[:0], y=y[:0])
    lab = make_lab(plan, tmp_path / "run", Records(by_site=by_site, test=nothing))
    for name, dealt in by_site.items():
        found = read_records(site_file(lab, name), plan)
        assert check(found, model=plan.model, public_records=9) == []
        for part in ("train_x", "train_y", "test_x", "test_y"):
            was, now = getattr(dealt, part), getattr(found, part)
            assert np.array_equal(was, now, equal_nan=was.dtype.kind == "f"), part

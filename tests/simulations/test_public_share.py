"""A share of the data set that no site gets: public, without labels, and nobody's record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collegium.core.errors import InvalidInput
from collegium.core.plan import Plan, Simulation
from collegium.data.site_data import SiteData
from collegium.simulations.dealing import dealt
from collegium.simulations.records import Records, split_records

MakePlan = Callable[..., Plan]


def digits(make_plan: MakePlan, share: float) -> Plan:
    plan = make_plan(4, rounds=2)
    model = replace(
        plan.model,
        name="collegium:glyph-cnn",
        classes=tuple("0123456789"),
        bounds={},
    )
    sites = tuple(replace(site, public_records=999) for site in plan.sites)
    simulation = Simulation(dataset="sklearn:digits", seed=3, public_share=share)
    return replace(plan, model=model, sites=sites, simulation=simulation)


def rows(records: Records) -> set[bytes]:
    """Every record that some site holds."""
    parts = [part for site in records.by_site.values() for part in (site.train_x, site.test_x)]
    return {row.tobytes() for part in parts for row in part}


def test_no_share_deals_as_ever(make_plan: MakePlan) -> None:
    plain = split_records(digits(make_plan, 0.0))
    assert plain.public is None
    kept = sum(len(site.train_y) + len(site.test_y) for site in plain.by_site.values())
    assert kept + len(plain.test) == 1797


def test_the_share_is_public_unlabelled_and_at_no_site(make_plan: MakePlan) -> None:
    plain, shared = (split_records(digits(make_plan, share)) for share in (0.0, 0.3))
    assert shared.public is not None and shared.public.y is None
    assert shared.public.origin == "public" and shared.public.name == "sklearn:digits/public"
    kept = sum(len(site.train_y) + len(site.test_y) for site in shared.by_site.values())
    assert kept + len(shared.public) == 1797 - len(shared.test)
    assert len(shared.public) == pytest.approx(0.3 * (1797 - len(shared.test)), abs=10)
    assert shared.test.digest == plain.test.digest, "the test part is the same"
    assert not rows(shared) & {row.tobytes() for row in shared.public.x}


def table(count: int, *, units: bool) -> SiteData:
    """``count`` records, every third one a copy of the one before, two records a patient."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    x[2::3] = x[1::3][: len(x[2::3])]
    y = (x[:, 0] > 0).astype(np.int64)
    names = np.array([f"p{index // 2}" for index in range(count)])
    return SiteData(
        asset="a",
        train_x=x,
        train_y=y,
        test_x=x[:4],
        test_y=y[:4],
        train_units=names if units else None,
        train_ids=np.arange(count * 16, dtype=np.uint8).reshape(count, 16),
    )


def test_equal_records_are_set_aside_together(make_plan: MakePlan) -> None:
    plan = make_plan(2, rounds=2)
    plan = replace(plan, simulation=Simulation(dataset="files", files="f", public_share=0.4))
    whole = table(60, units=False)
    records = dealt(plan, "a", replace(whole, test_x=whole.test_x + 9))
    assert records.public is not None and len(records.public)
    assert not rows(records) & {row.tobytes() for row in records.public.x}
    held = sum(len(site.train_y) + len(site.test_y) for site in records.by_site.values())
    assert held + len(records.public) == 60


@pytest.mark.parametrize("units", [True, False])
def test_no_copy_of_a_public_record_is_at_a_site_or_tested(
    units: bool, make_plan: MakePlan
) -> None:
    """Whether patients or contents are set aside whole, and whatever part the copy is in."""
    plan = make_plan(2, rounds=2)
    plan = replace(plan, simulation=Simulation(dataset="files", files="f", public_share=0.4))
    whole = table(120, units=units)
    names = None if whole.train_units is None else whole.train_units[:30:2]
    whole = replace(
        whole,
        calibration_x=whole.train_x[:30:2],
        calibration_y=whole.train_y[:30:2],
        calibration_units=names,
        test_x=whole.train_x[40:60],
        test_y=whole.train_y[40:60],
    )
    records = dealt(plan, "a", whole)
    assert records.public is not None and len(records.public)
    parts = [site.calibration_x for site in records.by_site.values()]
    tested = [records.test.x, *(part for part in parts if part is not None)]
    assert len(parts) == 2
    elsewhere = rows(records) | {row.tobytes() for part in tested for row in part}
    assert not elsewhere & {row.tobytes() for row in records.public.x}


def test_patients_are_set_aside_whole(make_plan: MakePlan) -> None:
    plan = make_plan(2, rounds=2)
    plan = replace(plan, simulation=Simulation(dataset="files", files="f", public_share=0.4))
    records = dealt(plan, "a", table(60, units=True))
    left = [site.train_units for site in records.by_site.values()]
    left += [site.test_units for site in records.by_site.values()]
    names = np.concatenate([part for part in left if part is not None])
    assert all(np.count_nonzero(names == name) == 2 for name in set(names))


def test_a_folder_of_site_files_sets_nothing_aside(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(2, rounds=2)
    simulation = Simulation(dataset="files", files=str(tmp_path), public_share=0.2)
    with pytest.raises(InvalidInput, match="belongs to its site"):
        split_records(replace(plan, simulation=simulation))

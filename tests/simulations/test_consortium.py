"""Sites from a split set: what they hold, what they accept of each other, what survives."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collegium.core.errors import InvalidInput
from collegium.core.plan import Plan
from collegium.models import registry
from collegium.privacy.bounds import update_norm_bound
from collegium.simulations.consortium import assemble
from collegium.simulations.records import simulation_of, split_records
from collegium.strategies.catalog import step_bound

MakePlan = Callable[..., Plan]
PLANS = Path(__file__).resolve().parents[2] / "simulations" / "plans"


@pytest.mark.parametrize("name", ["digits", "breast-cancer"])
def test_every_record_is_in_one_place(name: str) -> None:
    """Train and test parts of all sites and the global test part: no record twice, none lost."""
    from collegium.data.datasets import load

    plan = Plan.load(PLANS / f"{name}.toml")
    records = split_records(plan)
    parts = [records.test.x]
    for site in plan.sites:
        data = records.by_site[site.name]
        assert len(data.train_y) + len(data.test_y) <= site.public_records
        assert len(data.train_x) == len(data.train_y)
        assert len(data.train_y) > 0
        parts += [data.train_x, data.test_x]
    whole = load(simulation_of(plan).dataset).x
    joined = np.concatenate([part.reshape(len(part), -1) for part in parts])
    assert len(joined) == len(whole)
    rows = sorted(row.tobytes() for row in np.ascontiguousarray(joined))
    assert rows == sorted(row.tobytes() for row in whole.reshape(len(whole), -1))
    again = split_records(plan)
    for site in plan.sites:
        np.testing.assert_array_equal(
            again.by_site[site.name].train_x, records.by_site[site.name].train_x
        )


def test_another_seed_is_another_split() -> None:
    plan = Plan.load(PLANS / "breast-cancer.toml")
    assert plan.simulation is not None
    other = replace(plan, simulation=replace(plan.simulation, seed=plan.simulation.seed + 1))
    name = plan.sites[0].name
    one, two = (split_records(p).by_site[name].train_y for p in (plan, other))
    assert len(one) != len(two) or (one != two).any()


def test_a_roster_that_is_too_small() -> None:
    plan = Plan.load(PLANS / "breast-cancer.toml")
    small = replace(
        plan,
        sites=tuple(replace(site, public_records=20) for site in plan.sites),
    )
    with pytest.raises(InvalidInput, match="too small"):
        split_records(small)


def test_other_classes_than_the_data_set(make_plan: MakePlan) -> None:
    with pytest.raises(InvalidInput, match="classes"):
        split_records(make_plan(2))


def test_no_simulation_table(make_plan: MakePlan) -> None:
    with pytest.raises(InvalidInput, match="simulation"):
        simulation_of(replace(make_plan(), simulation=None))


def test_keys_ledgers_and_spools_are_found_again(make_lab: Any, make_plan: MakePlan) -> None:
    plan = make_plan(2, rounds=1)
    lab = make_lab(plan)
    lab.run()
    heads = {name: ledger.head for name, ledger in lab.consortium.ledgers.items()}
    public = {name: member.public_key for name, member in lab.consortium.members.items()}
    lab.close()
    again = make_lab(plan)
    assert {name: ledger.head for name, ledger in again.consortium.ledgers.items()} == heads
    assert {name: m.public_key for name, m in again.consortium.members.items()} == public


def test_a_small_noisy_site_does_not_lock_a_large_one_out(
    make_lab: Any, make_plan: MakePlan, make_records: Any
) -> None:
    """The global model moves as far as the loudest site lets it; the quiet one must follow."""
    plan = make_plan(
        4,
        rounds=4,
        records=(1000, 8, 8, 8),
        weights=(1.0, 1.0, 1.0, 1.0),
        strategy={"server_learning_rate": 4.0},
        privacy={"epsilon": 0.5, "sampling_rate": 0.5, "delta": 1e-4},
    )
    lab = make_lab(plan, records=make_records(plan, count=8))
    lab.run()
    assert [release.refused for release in lab.rounds] == [()] * 4


@pytest.mark.parametrize("codec", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("strategy", [{"name": "mean"}, {"name": "fedadam"}])
def test_every_site_follows_the_farthest_honest_model(
    make_lab: Any, make_plan: MakePlan, codec: str, strategy: dict[str, Any]
) -> None:
    """Each site's bound on one round is the coordinator's: the largest admitted update of any."""
    plan = make_plan(3, records=(400, 30, 60), codec=codec, strategy=strategy)
    lab = make_lab(plan)
    size = lab.consortium.layout.size
    from collegium.core.codec import codec as codec_of

    largest = max(
        (1 + codec_of(codec).relative_error)
        * update_norm_bound(
            member.spec, size=size, public_records=member.public_records, learning_rate=1.0
        )
        for member in lab.consortium.members.values()
    )
    reach = step_bound(plan, update_norm=largest, size=size)
    assert {site._step_bound for site in lab.sites.values()} == {reach}


def test_a_model_that_is_another_one_at_every_call_is_refused(
    make_plan: MakePlan, make_records: Any, tmp_path: Path
) -> None:
    """An unseeded factory: every site would hold another open model and all but one sit out."""
    plan = make_plan(2)

    def factory() -> torch.nn.Module:
        model = registry.build(plan.model)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
        return model

    with pytest.raises(InvalidInput, match="same model"):
        assemble(plan, make_records(plan), factory, tmp_path)


def test_a_frozen_part_that_differs_is_refused_too(
    make_plan: MakePlan, make_records: Any, tmp_path: Path
) -> None:
    plan, calls = make_plan(2), []

    def factory() -> torch.nn.Module:
        calls.append(1)
        model = registry.build(plan.model)
        model.register_buffer("trunk", torch.full((3,), float(len(calls))))
        return model

    with pytest.raises(InvalidInput, match="same model"):
        assemble(plan, make_records(plan), factory, tmp_path)


def test_sites_that_were_not_given(make_plan: MakePlan, make_records: Any, tmp_path: Path) -> None:
    plan = make_plan(3)
    records = make_records(plan)
    del records["s1"]
    with pytest.raises(InvalidInput, match="s1"):
        assemble(plan, records, lambda: registry.build(plan.model), tmp_path)

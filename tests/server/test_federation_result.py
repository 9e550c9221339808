"""result.json of a real run: every figure from the plan and the durable rounds."""

import json
from dataclasses import replace
from typing import Any

import pytest

from collegium.core.errors import MissingInput
from collegium.privacy.accountant import epsilon_of
from collegium.privacy.derive import schedule
from collegium.server.federation_result import (
    NO_HEAD,
    durable_rounds,
    federation_values,
    stated,
    wall_seconds,
)
from collegium.server.opening import mechanisms, opening


def test_a_lab_result_says_what_it_is(make_federation: Any) -> None:
    lab = make_federation()
    lab.drive()
    values = lab.finish()
    assert values["simulated"] is True
    assert values["local"] is None and values["pooled"] is None and values["edge"] is None
    assert values["seeds"] == [7]
    assert [entry["round"] for entry in values["history"]] == [1, 2, 3]
    assert values["privacy"]["guarantee"].startswith("no privacy guarantee")
    for site in values["sites"]:
        assert site["epsilon_total"] is None
        ledger = lab.consortium.ledgers[site["name"]]
        assert site["epsilon"] == pytest.approx(ledger.epsilon(job=values["job"]), rel=1e-12)
    assert values["peak_rss_bytes"] is None and values["serverapp_peak_rss_bytes"] > 1e6
    heads = {name: ledger.head for name, ledger in lab.consortium.ledgers.items()}
    assert set(values["privacy"]["epsilon_by_site"]) == set(heads)
    for name in ("report.html", "privacy.json", "privacy.html"):
        assert (lab.run / name).is_file()
    told = json.loads((lab.run / "privacy.json").read_bytes())
    assert "schedule" in told["derived_from"]


def test_epsilon_by_round_is_the_plans_schedule(make_federation: Any) -> None:
    lab = make_federation()
    lab.drive()
    plan = lab.coordinator().plan
    specs = mechanisms(plan, opening(plan).layout)
    for release in durable_rounds(lab.run):
        for site in plan.sites:
            spend = schedule(plan, site, specs[site.name], release.round)
            expected = epsilon_of(spend, plan.privacy.delta)
            assert release.epsilon_by_site[site.name] == expected


def test_a_real_run_claims_privacy_but_no_sites_total(make_federation: Any) -> None:
    lab = make_federation()
    plan = lab.coordinator().plan
    specs = mechanisms(plan, opening(plan).layout)
    told = stated(plan, specs, {"s0": "sha256:" + "0" * 64}, lab=False)
    assert told is not None
    assert told["guarantee"] == "differential privacy"
    assert told["epsilon_max"] <= plan.privacy.epsilon
    assert told["epsilon_by_site"]["s1"]["ledger_head"] == NO_HEAD
    for entry in told["epsilon_by_site"].values():
        assert entry["epsilon_total"] is None
        assert entry["runs_on_this_asset"] is None
    assert "own ledger" in told["accountant"]["across_runs"]


def test_without_privacy_there_is_no_statement(make_federation: Any) -> None:
    lab = make_federation()
    plan = lab.coordinator().plan
    off = replace(plan, privacy=replace(plan.privacy, enabled=False))
    assert stated(off, {}, {}, lab=False) is None


def test_an_open_run_has_no_result(make_federation: Any) -> None:
    lab = make_federation()
    lab.prepare()
    with pytest.raises(MissingInput, match="not finished"):
        federation_values(lab.run, lab.coordinator(), {})
    assert durable_rounds(lab.run) == []


def test_wall_seconds_count_the_pauses() -> None:
    events = [
        {"at": 100.0, "kind": "started"},
        {"at": 110.0, "kind": "round"},
        {"at": 150.0, "kind": "started"},
        {"at": 161.5, "kind": "finished"},
    ]
    assert wall_seconds(events) == 61.5
    assert wall_seconds([]) == 0.0

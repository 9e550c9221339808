"""The privacy statement: recomputed from ledgers, complete or refused, tainted when seeded."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from dp_accounting import dp_event
from dp_accounting.pld import PLDAccountant
from dp_accounting.privacy_accountant import NeighboringRelation

from collegium.core.errors import InvalidInput
from collegium.core.mechanism import CLIP_SLACK, MechanismSpec
from collegium.core.plan import Evaluation, ModelRef, Plan, Privacy, Rounds, SiteRef
from collegium.core.plan_fitting import Calibration, Statistics
from collegium.privacy.accountant import detection_of, epsilon_of, filter_epsilon
from collegium.privacy.derive import mechanism, noise_multiplier, schedule
from collegium.privacy.statement import (
    NO_GUARANTEE,
    Circumstances,
    SiteAccount,
    asked_once,
    released,
    statement,
)

Make = Callable[..., MechanismSpec]
TOLD = Circumstances(
    rounds=3,
    released=("the trainable vector of every round (noised)",),
    base_model="collegium:glyph-cnn",
    base_model_trained_on="printed fonts",
    evaluation="public",
    reproducible_noise=False,
)


def accounts(make_spec: Make) -> dict[str, SiteAccount]:
    """Two sites: b sat one of three rounds out and had spent in an earlier run."""
    a, b = make_spec(normaliser=10.0), make_spec(normaliser=20.0)
    return {
        "a": SiteAccount(spec=a, run=[(a, 3)], jobs={"now": [(a, 3)]}, ledger_head="sha256:1"),
        "b": SiteAccount(
            spec=b, run=[(b, 2)], jobs={"now": [(b, 2)], "old": [(b, 3)]}, ledger_head="sha256:2"
        ),
    }


def make(make_spec: Make, **changes: Any) -> dict[str, Any]:
    return statement(accounts(make_spec), replace(TOLD, **changes))


def test_every_epsilon_is_recomputed(make_spec: Make) -> None:
    found, spec = make(make_spec), make_spec()
    sites = found["epsilon_by_site"]
    assert sites["a"]["epsilon"] == epsilon_of([(spec, 3)], 1e-5)
    assert sites["b"]["epsilon"] == epsilon_of([(spec, 2)], 1e-5)
    assert found["epsilon_max"] == sites["a"]["epsilon"]
    assert sites["b"]["noisy_steps"] == 2


def test_a_second_run_on_an_asset_is_told_as_the_filters_bound(make_spec: Make) -> None:
    found, spec = make(make_spec), make_spec()
    site = found["epsilon_by_site"]["b"]
    assert site["epsilon_total"] == filter_epsilon([(spec, 5)], 1e-5)
    assert site["epsilon_total_fixed"] == epsilon_of([(spec, 5)], 1e-5)
    assert site["runs_on_this_asset"] == 2
    assert "Renyi filter" in found["accountant"]["across_runs"]
    alone = found["epsilon_by_site"]["a"]
    assert alone["epsilon_total"] == alone["epsilon"]


def test_a_person_in_two_sites_pays_twice(make_spec: Make) -> None:
    found = make(make_spec)
    together = epsilon_of([(make_spec(), 5)], 1e-5)
    assert found["epsilon_if_shared"] == pytest.approx(together)
    assert found["epsilon_if_shared"] > found["epsilon_max"]


def test_membership_in_plain_words(make_spec: Make) -> None:
    detection = make(make_spec)["detection"]
    assert detection["true_positive_rate"] == detection_of([(make_spec(), 3)], 1e-3)
    assert detection["true_positive_rate_if_shared"] > detection["true_positive_rate"]
    assert f"{detection['true_positive_rate']:.1%}" in detection["reads"]


def test_it_says_what_note_13_asks_for(make_spec: Make) -> None:
    found = make(make_spec)
    assert (found["unit"], found["relation"], found["delta"]) == (
        "record", "add-or-remove-one", 1e-5,
    )  # fmt: skip
    assert set(found["mechanism"]) >= {
        "sampler", "sampling_rate", "clip_norm", "noise_multiplier", "rounds", "steps_per_round",
        "noise", "batch_cap",
    }  # fmt: skip
    assert found["accountant"]["epsilon_rdp"] >= found["accountant"]["epsilon_pld"]
    assert found["accountant"]["discretization"] <= 1e-3
    assert set(found["protects_against"]) == {"coordinator", "other sites", "device holder"}
    assert any("test part" in line for line in found["not_covered"])
    assert any("approve" in line for line in found["not_covered"])
    assert found["base_model"]["trained_on"] == "printed fonts"
    assert found["tuning"]["accounted"] is False
    assert found["audit"] == {"conformance": "not run", "leakage": "not run"}
    assert len(found["questions"]) >= 8
    json.dumps(found, allow_nan=False)


def test_private_evaluation_is_in_the_run(make_spec: Make) -> None:
    assert "noised counts" in make(make_spec, evaluation="private")["evaluation"]


def test_seeded_noise_is_no_guarantee(make_spec: Make) -> None:
    assert make(make_spec)["guarantee"] == "differential privacy"
    tainted = make(make_spec, reproducible_noise=True)
    assert tainted["guarantee"] == NO_GUARANTEE
    assert "seed" in tainted["mechanism"]["noise"]
    assert any("seed" in pair["answer"] for pair in tainted["questions"])


def test_noise_of_a_device_generator_is_said_so(make_spec: Make) -> None:
    assert "64-bit" in make(make_spec, device_noise=True)["mechanism"]["noise"]
    assert make(make_spec, device_noise=None)["mechanism"]["noise"].startswith("not seen here")


@pytest.mark.parametrize(
    "change", [{"released": ()}, {"base_model": ""}, {"base_model_trained_on": ""}]
)
def test_incomplete_is_refused(make_spec: Make, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="incomplete"):
        make(make_spec, **change)


def fitted(**privacy: Any) -> Plan:
    """A plan with everything that may be asked once; two sites of different public size."""
    bounds = dict.fromkeys(("age", "dose", "mass"), (0.0, 1.0))
    return Plan(
        consortium="two",
        sites=(SiteRef(name="a", public_records=200), SiteRef(name="b", public_records=300)),
        model=ModelRef(
            name="tabular:linear", task="classification", classes=("no", "yes"), bounds=bounds
        ),
        rounds=Rounds(count=4, local_steps=2),
        privacy=Privacy(epsilon=2.0, delta=1e-4, sampling_rate=0.2, **privacy),
        statistics=Statistics(share=0.3),
        calibration=Calibration(share=0.2),
        evaluation=Evaluation(origin="private"),
    )


def stated(plan: Plan, *, without: str = "") -> dict[str, Any]:
    """The statement of a plan that ran; site b never answered the question ``without``."""
    sigma, known = noise_multiplier(plan), {}
    for site in plan.sites:
        spec = mechanism(plan, site, noise_multiplier=sigma, trainable_digest="sha256:t")
        rows = schedule(plan, site, spec, plan.rounds.count)
        if site.name == "b" and without:
            left_out = asked_once(plan)[without].trainable_digest
            rows = [row for row in rows if row[0].trainable_digest != left_out]
        known[site.name] = SiteAccount(spec=spec, run=rows, jobs={"now": rows}, ledger_head="h")
    told = replace(TOLD, rounds=4, evaluation="private", once=asked_once(plan))
    return json.loads(json.dumps(statement(known, replace(told, released=released(plan)))))


def recomputed(found: dict[str, Any], site: dict[str, Any]) -> float:
    """The epsilon of a site by the words of the statement alone, with dp-accounting alone."""
    m, account = found["mechanism"], found["accountant"]
    relation = NeighboringRelation[found["relation"].replace("-", "_").upper()]

    def composed(accountant: Any) -> float:
        gaussian = dp_event.GaussianDpEvent(m["noise_multiplier"])
        step: Any = dp_event.PoissonSampledDpEvent(m["sampling_rate"], gaussian)
        if m["batch_cap"]:
            step = dp_event.TruncatedSubsampledGaussianDpEvent(
                dataset_size=site["public_records"],
                sampling_probability=m["sampling_rate"],
                truncated_batch_size=m["batch_cap"],
                noise_multiplier=m["noise_multiplier"],
            )
        accountant.compose(step, site["noisy_steps"])
        for asked in m["once"]:
            event = dp_event.GaussianDpEvent(asked["noise_multiplier"])
            if answers := site["once_steps"][asked["name"]]:
                accountant.compose(event, answers)
        return float(accountant.get_epsilon(found["delta"]))

    interval = account["discretization"]
    return composed(PLDAccountant(relation, value_discretization_interval=interval))


@pytest.mark.parametrize("privacy", [{}, {"batch_cap": 90, "relation": "replace-special"}])
@pytest.mark.parametrize("without", ["", "calibration"])
def test_its_epsilon_follows_from_its_own_words(privacy: dict[str, Any], without: str) -> None:
    found = stated(fitted(**privacy), without=without)
    assert [each["name"] for each in found["mechanism"]["once"]] == [
        "common statistics", "calibration", "private evaluation",
    ]  # fmt: skip
    for site in found["epsilon_by_site"].values():
        assert site["epsilon"] == pytest.approx(recomputed(found, site), rel=2e-3)
    if without:
        of_b = found["epsilon_by_site"]["b"]
        assert of_b["once_steps"]["calibration"] == 0
        if not privacy:  # a larger site samples more often into a cap
            assert of_b["epsilon"] < found["epsilon_by_site"]["a"]["epsilon"]


def test_what_is_asked_once_is_listed_with_its_bound_and_its_noise() -> None:
    found = stated(fitted())
    for each in found["mechanism"]["once"]:
        wanted = each["noise_multiplier"] * each["sensitivity"] * (1 + CLIP_SLACK)
        assert each["noise_std"] == pytest.approx(wanted) and each["steps"] == 1
    norms = {each["name"]: each["sensitivity"] for each in found["mechanism"]["once"]}
    assert norms == {
        "common statistics": 2.0,  # the root of 1 and three numbers
        "calibration": 1.0,
        "private evaluation": pytest.approx(2**0.5),
    }
    (answer,) = (q["answer"] for q in found["questions"] if "sensitivity bounded" in q["question"])
    assert "one cell" in answer and "public bounds" in answer and "clip norm" in answer


def test_a_charge_that_it_cannot_name_is_refused(make_spec: Make) -> None:
    known = accounts(make_spec)
    rows = [*known["b"].run, (make_spec(noise_multiplier=9.0), 1)]
    known["b"] = replace(known["b"], run=rows)
    with pytest.raises(InvalidInput, match="what else the ledger of b was charged for"):
        statement(known, TOLD)


def test_a_site_that_sat_every_round_out_has_spent_nothing(make_spec: Make) -> None:
    known = accounts(make_spec)
    known["b"] = replace(known["b"], run=[], jobs={})
    assert statement(known, TOLD)["epsilon_by_site"]["b"]["epsilon_total"] == 0.0


def test_a_site_without_its_ledger_is_refused(make_spec: Make) -> None:
    known = accounts(make_spec)
    known["b"] = replace(known["b"], ledger_head="")
    with pytest.raises(InvalidInput, match="of b"):
        statement(known, TOLD)


def test_no_site_no_statement() -> None:
    with pytest.raises(InvalidInput):
        statement({}, TOLD)

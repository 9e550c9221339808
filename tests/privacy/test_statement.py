"""The privacy statement: recomputed from ledgers, complete or refused, tainted when seeded."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from collegium.core.errors import InvalidInput
from collegium.core.mechanism import MechanismSpec
from collegium.privacy.accountant import detection_of, epsilon_of, filter_epsilon
from collegium.privacy.statement import NO_GUARANTEE, Circumstances, SiteAccount, statement

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

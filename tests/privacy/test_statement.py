"""The privacy statement: recomputed from ledgers, complete or refused, tainted when seeded."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from collegium.core.errors import InvalidInput
from collegium.core.mechanism import MechanismSpec
from collegium.privacy.accountant import epsilon_of
from collegium.privacy.statement import NO_GUARANTEE, statement

Make = Callable[..., MechanismSpec]


def make(make_spec: Make, **changes: Any) -> dict[str, Any]:
    """The statement of two sites; b sat one of three rounds out and had spent before."""
    a, b = make_spec(normaliser=10.0), make_spec(normaliser=20.0)
    values: dict[str, Any] = {
        "specs": {"a": a, "b": b},
        "spends": {"a": [(a, 1)] * 3, "b": [(b, 1)] * 2},
        "totals": {"a": [(a, 1)] * 3, "b": [(b, 1)] * 5},
        "ledger_heads": {"a": "sha256:1", "b": "sha256:2"},
        "released": ("the trainable vector of every round (noised)",),
        "reproducible_noise": False,
        "rounds": 3,
    }
    return statement(**values | changes)


def test_every_epsilon_is_recomputed(make_spec: Make) -> None:
    found, spec = make(make_spec), make_spec()
    sites = found["epsilon_by_site"]
    assert sites["a"]["epsilon"] == epsilon_of([(spec, 3)], 1e-5)
    assert sites["b"]["epsilon"] == epsilon_of([(spec, 2)], 1e-5)
    assert sites["b"]["epsilon_total"] == epsilon_of([(spec, 5)], 1e-5)
    assert found["epsilon_max"] == sites["a"]["epsilon"]
    assert sites["b"]["noisy_steps"] == 2


def test_a_person_in_two_sites_pays_twice(make_spec: Make) -> None:
    found = make(make_spec)
    together = epsilon_of([(make_spec(), 5)], 1e-5)
    assert found["epsilon_if_shared"] == pytest.approx(together)
    assert found["epsilon_if_shared"] > found["epsilon_max"]


def test_it_says_what_note_13_asks_for(make_spec: Make) -> None:
    found = make(make_spec)
    assert (found["unit"], found["relation"], found["delta"]) == (
        "record", "add-or-remove-one", 1e-5,
    )  # fmt: skip
    assert set(found["mechanism"]) >= {
        "sampler", "sampling_rate", "clip_norm", "noise_multiplier", "rounds", "steps_per_round",
        "noise",
    }  # fmt: skip
    assert set(found["accountant"]) == {"method", "discretization", "dp_accounting"}
    assert set(found["protects_against"]) == {"coordinator", "other sites", "device holder"}
    assert any("test part" in line for line in found["not_covered"])
    json.dumps(found, allow_nan=False)


def test_seeded_noise_is_no_guarantee(make_spec: Make) -> None:
    assert make(make_spec)["guarantee"] == "differential privacy"
    tainted = make(make_spec, reproducible_noise=True)
    assert tainted["guarantee"] == NO_GUARANTEE
    assert "seed" in tainted["mechanism"]["noise"]


@pytest.mark.parametrize("part", ["spends", "totals", "ledger_heads"])
def test_incomplete_is_refused(make_spec: Make, part: str) -> None:
    with pytest.raises(InvalidInput, match="b"):
        make(make_spec, **{part: {"a": []}})


def test_no_site_no_statement(make_spec: Make) -> None:
    with pytest.raises(InvalidInput):
        make(make_spec, specs={})

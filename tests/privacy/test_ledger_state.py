"""What entries add up to, and which may follow: the site's own key cannot write a contradiction."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from collegium.core.errors import LedgerTampered
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.privacy.ledger_rows import Claim, LedgerEntry, Witness
from collegium.privacy.ledger_state import State

Make = Callable[..., MechanismSpec]
BUDGET = Budget(epsilon=3.0, delta=1e-5, unit="record", relation="add-or-remove-one")
GENESIS = LedgerEntry(seq=0, prev="", at=0.0, asset="a", kind="genesis", budget=BUDGET, hash="h0")


def entry(kind: Any, **values: Any) -> LedgerEntry:
    """An entry of the first attempt of round 1."""
    names = {"job": "j", "round": 1, "attempt": 1} if kind in ("reserve", "commit", "abort") else {}
    known: dict[str, Any] = {"seq": 1, "prev": "h0", "at": 0.0, "asset": "a", "hash": kind}
    return LedgerEntry(**known | names | values, kind=kind)


def reserve(spec: MechanismSpec, **values: Any) -> LedgerEntry:
    claim = Claim(epsilon=1.0, method="pld", interval=1e-3)
    return entry("reserve", **{"spec": spec, "steps": spec.steps, "claim": claim} | values)


def test_spends_are_kept_by_job_and_plan(make_spec: Make) -> None:
    one, other = make_spec(steps=2), make_spec(noise_multiplier=5.0)
    state = State([
        GENESIS, reserve(one), reserve(one, round=2), reserve(other, round=3),
        reserve(one, job="k"), reserve(one, job="k", round=2, plan="p"),
    ])  # fmt: skip
    assert state.spends() == {
        ("j", ""): [(one, 4), (other, 1)], ("k", ""): [(one, 2)], ("k", "p"): [(one, 2)],
    }  # fmt: skip


def test_lowering_the_cap_is_kept(make_spec: Make) -> None:
    lower = replace(BUDGET, epsilon=1.0)
    state = State([GENESIS, reserve(make_spec()), entry("policy", budget=lower)])
    assert (state.budget, state.spent_under) == (lower, BUDGET)
    again = State([GENESIS, entry("policy", budget=lower), reserve(make_spec())])
    assert again.spent_under == lower


def test_nothing_contradicts(make_spec: Make) -> None:
    spec = make_spec(steps=3)
    paid, done = reserve(spec), entry("commit", steps=3)
    peer = Witness(head="h9", key="k", message="", signature="")
    contradictions: dict[str, list[LedgerEntry]] = {
        "no genesis": [paid],
        "two": [GENESIS, GENESIS],
        "another asset": [GENESIS, replace(paid, asset="b")],
        "reserved twice": [GENESIS, paid, paid],
        "reserved twice, otherwise": [GENESIS, paid, replace(paid, base_sha256="c")],
        "fewer steps than its mechanism": [GENESIS, replace(paid, steps=2)],
        "another unit": [GENESIS, reserve(make_spec(unit="patient"))],
        "another relation": [GENESIS, reserve(make_spec(relation="replace-one"))],
        "unpaid": [GENESIS, done],
        "unpaid abort": [GENESIS, entry("abort")],
        "more than reserved": [GENESIS, paid, replace(done, steps=4)],
        "committed twice": [GENESIS, paid, done, done],
        "committed after an abort": [GENESIS, paid, entry("abort"), done],
        "aborted after a commit": [GENESIS, paid, done, entry("abort")],
        "raised": [GENESIS, entry("policy", budget=replace(BUDGET, epsilon=4.0))],
        "another delta": [GENESIS, entry("policy", budget=replace(BUDGET, delta=1e-6))],
        "raised again": [
            GENESIS, entry("policy", budget=replace(BUDGET, epsilon=1.0)),
            entry("policy", budget=replace(BUDGET, epsilon=2.0)),
        ],
        "a head that was never here": [GENESIS, entry("witness", evidence=peer)],
    }  # fmt: skip
    for name, entries in contradictions.items():
        State(entries[:-1])
        with pytest.raises(LedgerTampered):
            State(entries)
            pytest.fail(name)
    State([GENESIS, paid, done, entry("witness", evidence=replace(peer, head="h0"))])
    with pytest.raises(LedgerTampered):
        assert State().budget

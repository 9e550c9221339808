"""What a ledger writes down beside reserves: lower caps, plans, aborts, releases, peers, keys."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from collegium.core.errors import LedgerRolledBack, LedgerTampered, OverBudget, Refused
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.signing import generate_key
from collegium.privacy.accountant import epsilon_of, filter_epsilon
from collegium.privacy.ledger import Ledger

Make = Callable[..., MechanismSpec]
KEY = generate_key()
BUDGET = Budget(epsilon=3.0, delta=1e-5, unit="record", relation="add-or-remove-one")


def ledger(folder: Path, *, budget: Budget = BUDGET, asset: str = "cardiology") -> Ledger:
    """The ledger of a folder."""
    return Ledger(folder / "l.sqlite", asset, budget, KEY)


def reserve(book: Ledger, spec: MechanismSpec, round: int, **changes: object) -> bool:
    """A reserve of one round."""
    values = {"job": "j", "round": round, "attempt": 1, "base_sha256": f"sha256:{round}"}
    return book.reserve(**values | changes, spec=spec)  # type: ignore[arg-type]


def test_a_budget_is_lowered_never_raised(tmp_path: Path, make_spec: Make) -> None:
    ledger(tmp_path).close()
    for wider in (
        replace(BUDGET, epsilon=30.0), replace(BUDGET, delta=1e-4), replace(BUDGET, delta=1e-6),
        replace(BUDGET, unit="patient"), replace(BUDGET, relation="replace-one"),
    ):  # fmt: skip
        with pytest.raises(Refused, match="Cure"):
            ledger(tmp_path, budget=wider)
    with pytest.raises(Refused, match="asset"):
        ledger(tmp_path, asset="renamed")
    lower = replace(BUDGET, epsilon=0.5)
    book = ledger(tmp_path, budget=lower)
    assert book.budget == lower
    assert [entry.kind for entry in book.entries()] == ["genesis", "policy"]
    with pytest.raises(OverBudget):
        reserve(book, make_spec(noise_multiplier=0.8), 1)
    book.close()
    with pytest.raises(Refused, match=r"0\.5, not 3"):  # it holds from then on
        ledger(tmp_path)
    again = ledger(tmp_path, budget=lower)
    assert len(again.entries()) == 2  # and is written once
    again.close()


def test_the_cap_is_held_against_the_filter_once_a_second_plan_comes(
    tmp_path: Path, make_spec: Make
) -> None:
    spec = make_spec(noise_multiplier=2.0, steps=20)
    book = ledger(tmp_path)
    reserve(book, spec, 1)
    assert book.enforced() == book.epsilon() == epsilon_of([(spec, 20)], 1e-5)
    reserve(book, spec, 1, job="k")
    twice = [(spec, 40)]
    assert book.enforced() == filter_epsilon(twice, 1e-5) > book.epsilon()
    assert book.epsilon() == epsilon_of(twice, 1e-5)
    reserve(book, spec, 2, plan="sha256:p")  # the same job under another plan is another schedule
    claims = [entry.claim for entry in book.entries() if entry.claim is not None]
    assert [claim.method for claim in claims] == ["pld", "renyi-filter", "renyi-filter"]
    assert claims[-1].epsilon == filter_epsilon([(spec, 60)], 1e-5)
    limit = book.enforced()
    book.close()
    tight = ledger(tmp_path, budget=replace(BUDGET, epsilon=limit))
    with pytest.raises(OverBudget):  # by its tighter figure one more round would still fit
        reserve(tight, make_spec(noise_multiplier=40.0), 3)
    assert epsilon_of([(spec, 60), (make_spec(noise_multiplier=40.0), 1)], 1e-5) < limit
    tight.close()


def test_a_reserve_says_how_it_was_counted(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    reserve(book, make_spec(), 1, plan="sha256:p", rng="aes-256-ctr")
    entry = book.entries()[-1]
    assert (entry.plan, entry.rng, entry.steps) == ("sha256:p", "aes-256-ctr", 1)
    assert entry.claim is not None
    assert entry.claim.epsilon == epsilon_of([(make_spec(), 1)], 1e-5)
    assert (entry.claim.method, 0 < entry.claim.interval <= 1e-2) == ("pld", True)
    assert {"python", "collegium", "dp-accounting"} <= set(entry.versions)
    with pytest.raises(Refused, match="plan"):
        reserve(book, make_spec(), 1, plan="sha256:q")
    book.close()


def test_an_abort_refunds_nothing(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    names = {"job": "j", "round": 1, "attempt": 1}
    with pytest.raises(Refused, match="no open reserve"):
        book.abort(**names)
    reserve(book, make_spec(), 1)
    spent = book.epsilon()
    book.abort(**names, note="the machine was stopped")
    book.abort(**names)
    assert [entry.kind for entry in book.entries()] == ["genesis", "reserve", "abort"]
    assert book.epsilon() == spent
    with pytest.raises(Refused, match="given up"):
        reserve(book, make_spec(), 1)
    with pytest.raises(Refused, match="no open reserve"):
        book.commit(**names, update_sha256="sha256:u")
    assert reserve(book, make_spec(), 1, attempt=2)
    book.commit(**names | {"attempt": 2}, update_sha256="sha256:u")
    with pytest.raises(Refused, match="no open reserve"):
        book.abort(**names | {"attempt": 2})
    book.close()


def test_a_commit_says_what_was_executed(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    spec = make_spec(steps=3)
    for round in (1, 2, 3):
        reserve(book, spec, round)
    spent = book.epsilon()
    book.commit(job="j", round=1, attempt=1, update_sha256="u")
    book.commit(job="j", round=2, attempt=1, update_sha256="u", steps=2)
    with pytest.raises(Refused, match="4 steps"):
        book.commit(job="j", round=3, attempt=1, update_sha256="u", steps=4)
    assert [e.steps for e in book.entries() if e.kind == "commit"] == [3, 2]
    assert book.epsilon() == spent  # unused steps are not refunded
    book.close()


def test_a_release_is_recorded_once(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    for job in ("j", "j", "k"):
        book.release(model_sha256="sha256:m", job=job, round=3, note="to the registry")
    assert [(e.kind, e.job) for e in book.entries()[1:]] == [("release", "j"), ("release", "k")]
    book.close()


def test_a_countersigned_head_is_kept_and_a_lost_one_is_noticed(
    tmp_path: Path, make_spec: Make
) -> None:
    book, peer = ledger(tmp_path), generate_key()
    reserve(book, make_spec(), 1)
    head = book.head

    def tell(head: str, message: bytes, signature: bytes | None = None) -> None:
        signed = peer.sign(message) if signature is None else signature
        book.witness(head=head, key=peer.public_key(), message=message, signature=signed)

    for message, signature in ((b"something else", None), (head.encode(), bytes(64))):
        with pytest.raises(Refused, match="not signed"):
            tell(head, message, signature)
    tell(head, b'{"site_ledger_head":"%b"}' % head.encode())
    tell(head, head.encode())
    assert [entry.kind for entry in book.entries()] == ["genesis", "reserve", "witness"]
    lost = "sha256:" + "9" * 64
    with pytest.raises(LedgerRolledBack):
        tell(lost, lost.encode())
    book.close()


def test_a_new_key_takes_over(tmp_path: Path, make_spec: Make) -> None:
    book, new = ledger(tmp_path), generate_key()
    reserve(book, make_spec(), 1)
    book.rotate(new)
    reserve(book, make_spec(), 2)
    book.close()
    with pytest.raises(LedgerTampered, match="signed"):
        ledger(tmp_path)
    again = Ledger(tmp_path / "l.sqlite", "cardiology", BUDGET, new)
    assert again.knows(again.entries()[1].hash) and not again.knows("sha256:0")
    again.close()

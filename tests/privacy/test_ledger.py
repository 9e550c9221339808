"""The ledger: append-only, chained, signed, idempotent, over budget never; against a slow twin."""

import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from dp_accounting import dp_event as events
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.errors import (
    LedgerTampered,
    MissingInput,
    OverBudget,
    Refused,
)  # fmt: skip
from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.signing import generate_key
from collegium.privacy.accountant import enforced_bound, epsilon_of
from collegium.privacy.ledger import Ledger, open_readonly, read_rows

Make = Callable[..., MechanismSpec]
KEY = generate_key()
BUDGET = Budget(epsilon=3.0, delta=1e-5, unit="record", relation="add-or-remove-one")


def ledger(path: Path, *, budget: Budget = BUDGET, asset: str = "cardiology") -> Ledger:
    """A ledger in a folder or file."""
    return Ledger(path if path.suffix else path / "l.sqlite", asset, budget, KEY)


def database(book: Ledger) -> sqlite3.Connection:
    """The one connection that writes a ledger."""
    assert book._writer._db is not None
    return book._writer._db


def reserve(book: Ledger, spec: MechanismSpec, round: int, **changes: object) -> bool:
    """A reserve of one round."""
    values = {"job": "j", "round": round, "attempt": 1, "base_sha256": f"sha256:{round}"}
    return book.reserve(**values | changes, spec=spec)  # type: ignore[arg-type]


def test_epsilon_is_dp_accountings(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    assert book.epsilon() == 0.0
    for round in (1, 2, 3):
        assert reserve(book, make_spec(steps=2), round)
    assert reserve(book, make_spec(noise_multiplier=4.0), 4, job="k")
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    for noise, count in ((2.0, 6), (4.0, 1)):
        event = events.PoissonSampledDpEvent(0.1, events.GaussianDpEvent(noise))
        accountant.compose(event, count)
    assert book.epsilon() == pytest.approx(accountant.get_epsilon(1e-5), abs=1e-9)
    assert book.epsilon(job="j") == epsilon_of([(make_spec(), 6)], 1e-5)
    book.close()


def test_a_reserve_is_charged_once(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    assert reserve(book, make_spec(), 1)
    before = book.entries()
    assert not reserve(book, make_spec(), 1)
    assert book.entries() == before
    with pytest.raises(Refused, match="another model"):
        reserve(book, make_spec(), 1, base_sha256="sha256:other")
    with pytest.raises(Refused, match="another model"):
        reserve(book, make_spec(clip_norm=0.5), 1)
    assert book.entries() == before
    assert reserve(book, make_spec(), 1, attempt=2, base_sha256="sha256:other")
    book.close()


def test_a_commit_neither_charges_nor_refunds(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    reserve(book, make_spec(), 1)
    spent = book.epsilon()
    book.commit(job="j", round=1, attempt=1, update_sha256="sha256:u")
    book.commit(job="j", round=1, attempt=1, update_sha256="sha256:u")
    with pytest.raises(Refused, match="other bytes"):  # a second draw is a second release
        book.commit(job="j", round=1, attempt=1, update_sha256="sha256:v")
    assert [entry.kind for entry in book.entries()] == ["genesis", "reserve", "commit"]
    assert book.entries()[-1].update_sha256 == "sha256:u"
    assert book.epsilon() == spent
    book.close()


def test_over_budget_is_refused_and_nothing_is_written(tmp_path: Path, make_spec: Make) -> None:
    spec = make_spec(noise_multiplier=1.0)
    limit = epsilon_of([(spec, 4)], 1e-5)
    book = ledger(tmp_path, budget=Budget(epsilon=limit, delta=1e-5, unit="record",
                                          relation="add-or-remove-one"))  # fmt: skip
    for round in range(1, 5):
        assert reserve(book, spec, round)  # exactly the budget is allowed
    before = book.entries()
    with pytest.raises(OverBudget):
        reserve(book, spec, 5)
    with pytest.raises(OverBudget):  # no noise is never affordable
        reserve(book, make_spec(noise_multiplier=0.0), 5)
    assert book.entries() == before
    book.close()
    again = ledger(tmp_path, budget=before[0].budget or BUDGET)
    with pytest.raises(OverBudget):  # nor after a restart, nor for another job
        reserve(again, spec, 1, job="another")
    again.close()


def test_another_unit_or_relation_is_refused(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    for change in ({"unit": "patient"}, {"relation": "replace-one"}):
        with pytest.raises(Refused):
            reserve(book, make_spec(**change), 1)
    assert len(book.entries()) == 1
    book.close()


def test_durability_settings(tmp_path: Path) -> None:
    book = ledger(tmp_path)
    assert database(book).execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert database(book).execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    book.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET body = '{}' WHERE seq = 1",
        "DELETE FROM entries WHERE seq = 2",
        "DELETE FROM entries",
        "INSERT OR REPLACE INTO entries SELECT 1, prev, body, 'other', signature FROM entries"
        " WHERE seq = 2",
        "REPLACE INTO entries SELECT seq, prev, body, hash, signature FROM entries WHERE seq = 0",
        "INSERT INTO entries SELECT 9, prev, body, 'other', signature FROM entries WHERE seq = 2",
        "INSERT INTO entries SELECT -1, prev, body, 'other', signature FROM entries WHERE seq = 2",
    ],
)
def test_the_table_takes_appends_alone(tmp_path: Path, make_spec: Make, statement: str) -> None:
    book = ledger(tmp_path)
    reserve(book, make_spec(), 1)
    reserve(book, make_spec(), 2)
    other = sqlite3.connect(tmp_path / "l.sqlite")
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        other.execute(statement)
    other.close()
    book.close()


def tampered(path: Path, *statements: str) -> None:
    """Change a ledger as an administrator could: without its triggers."""
    connection = sqlite3.connect(path)
    for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'"):
        connection.execute(f"DROP TRIGGER {name}")
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


TAMPERINGS = {
    "cheaper": "UPDATE entries SET body = replace(body, '\"steps\":1', '\"steps\":0')"
    " WHERE seq = 1",
    "another round": "UPDATE entries SET body = replace(body, '\"round\":2', '\"round\":7')"
    " WHERE seq = 2",
    "middle removed": "DELETE FROM entries WHERE seq = 1",
    "first removed": "DELETE FROM entries WHERE seq = 0",
    "swapped": "UPDATE entries SET seq = CASE seq WHEN 1 THEN -2 ELSE seq END",
    "signature": "UPDATE entries SET signature = zeroblob(64) WHERE seq = 2",
    "no signature": "UPDATE entries SET signature = x'' WHERE seq = 2",
    "hash": "UPDATE entries SET hash = 'sha256:00' WHERE seq = 2",
    "chain": "UPDATE entries SET prev = 'sha256:00' WHERE seq = 2",
    "budget": "UPDATE entries SET body = replace(body, '\"epsilon\":3.0', '\"epsilon\":9.0')"
    " WHERE seq = 0",
}


@pytest.mark.parametrize("statement", TAMPERINGS.values(), ids=TAMPERINGS.keys())
def test_tampering_is_found(tmp_path: Path, make_spec: Make, statement: str) -> None:
    book = ledger(tmp_path)
    for round in (1, 2, 3):
        reserve(book, make_spec(), round)
    book.close()
    tampered(tmp_path / "l.sqlite", statement)
    with pytest.raises(LedgerTampered):
        ledger(tmp_path)


def test_a_whole_forged_chain_needs_the_key(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    reserve(book, make_spec(), 1)
    book.close()
    thief = Ledger(tmp_path / "forged.sqlite", "cardiology", BUDGET, generate_key())
    thief.close()
    (tmp_path / "forged.sqlite").replace(tmp_path / "l.sqlite")
    for extra in tmp_path.glob("l.sqlite-*"):
        extra.unlink()
    with pytest.raises(LedgerTampered, match="signed"):
        ledger(tmp_path)


def test_not_a_ledger_at_all(tmp_path: Path) -> None:
    (tmp_path / "l.sqlite").write_bytes(b"rubbish" * 1000)
    with pytest.raises(LedgerTampered):
        ledger(tmp_path)
    with pytest.raises(LedgerTampered), open_readonly(tmp_path / "l.sqlite") as connection:
        read_rows(connection)
    with pytest.raises(MissingInput), open_readonly(tmp_path / "none.sqlite"):
        pass


def test_threads_share_one_chain(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    made: list[bool] = []

    def work() -> None:
        for round in range(1, 9):
            made.append(reserve(book, make_spec(noise_multiplier=20.0), round))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == 8
    assert len(book.entries()) == 9
    book.close()
    ledger(tmp_path).close()


def test_a_failed_write_leaves_memory_as_it_was_and_closes(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    reserve(book, make_spec(), 1)
    database(book).execute("PRAGMA max_page_count = 1")  # SQLite's own way to say: full
    known = book.entries()
    with pytest.raises(sqlite3.OperationalError, match="full"):
        for round in range(2, 500):
            known = book.entries()
            reserve(book, make_spec(noise_multiplier=50.0), round)
    assert book.entries() == known
    for use in (
        lambda: reserve(book, make_spec(noise_multiplier=50.0), 1000),
        lambda: book.commit(job="j", round=1, attempt=1, update_sha256="u"),
        lambda: book.release(model_sha256="m"),
    ):
        with pytest.raises(Refused, match="closed"):
            use()
    book.close()
    again = ledger(tmp_path)
    assert again.entries() == known
    assert reserve(again, make_spec(noise_multiplier=50.0), 1000)
    again.close()


def test_a_closed_ledger_is_not_used(tmp_path: Path, make_spec: Make) -> None:
    book = ledger(tmp_path)
    book.close()
    book.close()
    with pytest.raises(Refused, match="closed"):
        reserve(book, make_spec(), 1)
    assert len(book.entries()) == 1


ACTIONS = st.lists(
    st.one_of(
        st.tuples(
            st.just("reserve"), st.sampled_from("jk"), st.integers(1, 4), st.integers(1, 2),
            st.sampled_from("xy"), st.sampled_from([1.2, 2.0]),
        ),
        st.tuples(st.just("commit"), st.sampled_from("jk"), st.integers(1, 4), st.integers(1, 2)),
        st.tuples(st.just("reopen")),
    ),
    max_size=14,
)  # fmt: skip


@given(actions=ACTIONS)
@settings(deadline=None, max_examples=40)
def test_any_sequence_behaves_like_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory,
    make_spec: Make,
    actions: list[tuple],  # type: ignore[type-arg]
) -> None:
    """The slow twin: a dict of reserves, a set of commits, and the budget asked each time."""
    folder = tmp_path_factory.mktemp("ledger")
    budget = Budget(epsilon=1.9, delta=1e-5, unit="record", relation="add-or-remove-one")
    book = ledger(folder, budget=budget)
    reserves: dict[tuple[str, int, int], tuple[str, float]] = {}
    commits: set[tuple[str, int, int]] = set()
    for action in actions:
        if action[0] == "reopen":
            book.close()
            book = ledger(folder, budget=budget)
        elif action[0] == "commit":
            _, job, round, attempt = action
            if (job, round, attempt) in reserves:
                book.commit(job=job, round=round, attempt=attempt, update_sha256="u")
                commits.add((job, round, attempt))
            else:
                with pytest.raises(Refused, match="no open reserve"):
                    book.commit(job=job, round=round, attempt=attempt, update_sha256="u")
        else:
            _, job, round, attempt, base, noise = action
            name, spec = (job, round, attempt), make_spec(noise_multiplier=noise, steps=5)
            spends: dict[tuple[str, str], list[tuple[MechanismSpec, int]]] = {}
            for (owner, *_), (_, value) in [*reserves.items(), ((job,), (base, noise))]:
                row = (make_spec(noise_multiplier=value), 5)
                spends.setdefault((owner, ""), []).append(row)
            try:
                charged = book.reserve(
                    job=job, round=round, attempt=attempt, base_sha256=base, spec=spec
                )
            except Refused:
                assert name in reserves and reserves[name] != (base, noise)
            except OverBudget:
                assert name not in reserves
                assert enforced_bound(spends, 1e-5).epsilon > 1.9
            else:
                assert charged == (name not in reserves)
                reserves[name] = (base, noise)
    entries = book.entries()
    assert {(e.job, e.round, e.attempt) for e in entries if e.kind == "commit"} == commits
    assert {(e.job, e.round, e.attempt) for e in entries if e.kind == "reserve"} == set(reserves)
    assert [entry.seq for entry in entries] == list(range(1 + len(reserves) + len(commits)))
    spend = [(make_spec(noise_multiplier=value), 5) for _, value in reserves.values()]
    assert book.epsilon() == epsilon_of(spend, 1e-5) <= 1.9
    book.close()

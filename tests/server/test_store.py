"""The coordinator's memory: whole rounds or none, chained, damaged ones named, plans not mixed."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collegium.core.digest import sha256_hex
from collegium.core.errors import InvalidInput, OutputExists
from collegium.core.messages import Sealed
from collegium.server import store as store_module
from collegium.server.store import Release, Store

PLAN = "sha256:plan"


def open_store(folder: Path, plan: str = PLAN) -> Store:
    return Store(folder / "rounds", plan_digest=plan, updates=folder / "updates")


def release(round: int) -> Release:
    return Release(
        round=round,
        model_sha256=f"sha256:{round}",
        prev_sha256=f"sha256:{round - 1}",
        sites=("a", "b"),
        refused=(("c", "norm"),),
        late=("d",),
        epsilon_by_site={"a": 0.1 * round},
        bytes_up=3,
        bytes_down=4,
        seconds=0.5,
        metrics={"accuracy": 0.5},
        site_metrics={"a": {"auc": 0.25}},
    )


def values(round: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    vector = np.arange(5, dtype=np.float32) + round
    return vector, {"sum": np.full(5, 1e-17 + round), "round": np.array([round])}


def commit(store: Store, round: int) -> None:
    store.commit(release(round), *values(round))


def test_round_trip(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store.latest() is None
    assert store.history() == []
    job = store.job
    commit(store, 1)
    commit(store, 2)
    store.close()
    again = open_store(tmp_path)
    assert again.job == job
    assert again.history() == [release(1), release(2)]
    latest = again.latest()
    assert latest is not None
    number, vector, state = latest
    assert number == 2
    np.testing.assert_array_equal(vector, values(2)[0])
    assert vector.dtype == np.float32
    for name, value in values(2)[1].items():
        np.testing.assert_array_equal(state[name], value)
        assert state[name].dtype == value.dtype
    again.close()


def test_another_plan_is_another_run(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with pytest.raises(OutputExists, match="another plan"):
        open_store(tmp_path, "sha256:other")
    open_store(tmp_path).close()


def test_every_job_is_new(tmp_path: Path) -> None:
    jobs = set()
    for number in range(3):
        store = open_store(tmp_path / str(number))
        jobs.add(store.job)
        store.close()
    assert len(jobs) == 3
    assert all(len(job) == 32 for job in jobs)


def test_a_round_is_written_once(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    commit(store, 1)
    with pytest.raises(sqlite3.IntegrityError):
        commit(store, 1)
    assert len(store.history()) == 1
    store.close()


def test_disk_use_is_flat(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for round in range(1, 8):
        commit(store, round)
    kept = sorted(path.name for path in (tmp_path / "rounds").glob("*.safetensors"))
    assert kept == ["round-000006.safetensors", "round-000007.safetensors"]
    store.close()


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "older"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, damage: str) -> None:
    store = open_store(tmp_path)
    commit(store, 1)
    commit(store, 2)
    store.close()
    path = tmp_path / "rounds" / "round-000002.safetensors"
    raw = path.read_bytes()
    if damage == "flip":
        path.write_bytes(raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:])
    elif damage == "cut":
        path.write_bytes(raw[:-1])
    elif damage == "gone":
        path.unlink()
    else:
        path.write_bytes((tmp_path / "rounds" / "round-000001.safetensors").read_bytes())
    again = open_store(tmp_path)
    latest = again.latest()
    assert latest is not None
    assert latest[0] == 1
    np.testing.assert_array_equal(latest[1], values(1)[0])
    assert again.after(1) == [release(2)]
    again.close()


def test_every_flipped_byte_is_found(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    commit(store, 1)
    path = tmp_path / "rounds" / "round-000001.safetensors"
    raw = path.read_bytes()
    for place in range(0, len(raw), 7):
        path.write_bytes(raw[:place] + bytes([raw[place] ^ 0x10]) + raw[place + 1 :])
        assert store.latest() is None
    path.write_bytes(raw)
    assert store.latest() is not None
    store.close()


def test_only_the_committed_model_mends_a_checkpoint(tmp_path: Path) -> None:
    vector, state = values(1)
    real = replace(release(1), model_sha256=sha256_hex(vector.tobytes()))
    store = open_store(tmp_path)
    store.commit(real, vector, state)
    path = tmp_path / "rounds" / "round-000001.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:-1])
    with pytest.raises(InvalidInput, match="round 1 is damaged"):
        store.mend(real, vector + 1, state)
    assert store.latest() is None
    store.mend(real, vector, state)
    assert path.read_bytes() == raw
    assert store.latest() is not None
    store.close()


def test_a_damaged_database_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for round in range(1, 4):
        commit(store, round)
    store.close()
    path = tmp_path / "rounds" / "rounds.sqlite"
    raw, refused = path.read_bytes(), 0
    for place in range(0, len(raw), 512):
        path.write_bytes(raw[:place])
        try:
            torn = open_store(tmp_path)
        except InvalidInput as error:
            refused += 1
            assert "restore" in str(error)
        else:
            assert torn.history() == []  # SQLite takes an empty file for a new database
            assert place == 0
            torn.close()
    assert refused == len(range(0, len(raw), 512)) - 1


def test_rounds_that_do_not_follow_are_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    commit(store, 1)
    store.commit(replace(release(2), prev_sha256="sha256:other"), *values(2))
    store.close()
    with pytest.raises(InvalidInput, match="at round 2"):
        open_store(tmp_path)


class Killed(BaseException):
    """What a kill looks like from inside."""


def die(*_: object, **__: object) -> None:
    raise Killed


@pytest.mark.parametrize("when", ["before the file", "between file and row", "half a file"])
def test_killed_in_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    store = open_store(tmp_path)
    commit(store, 1)
    with monkeypatch.context() as patch:
        if when == "before the file":
            patch.setattr("collegium.server.disk.write_atomic", die)
        elif when == "between file and row":
            patch.setattr(store_module, "canonical_bytes", die)
        else:
            patch.setattr("os.fsync", die)
        with pytest.raises(Killed):
            commit(store, 2)
    store.close()
    again = open_store(tmp_path)
    assert [entry.round for entry in again.history()] == [1]
    latest = again.latest()
    assert latest is not None
    np.testing.assert_array_equal(latest[1], values(1)[0])
    commit(again, 2)  # the same round again, over what was left
    assert [entry.round for entry in again.history()] == [1, 2]
    assert not list((tmp_path / "rounds").glob("*.partial"))
    again.close()


def test_kept_updates(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    reply = Sealed(header=b'{"a":1}', signature=b"\x01" * 64, payload=b"payload")
    store.keep_update(3, "north", reply)
    assert store.kept_payload(3, "north") == b"payload"
    folder = tmp_path / "updates" / "round-000003"
    header, signature = (folder / "north.header").read_bytes().split(b"\n")
    assert header == reply.header
    assert bytes.fromhex(signature.decode()) == reply.signature
    store.close()


def test_durability_settings(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert store._db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert store._db.execute("PRAGMA synchronous").fetchone()[0] == 2  # FULL
    store.close()


def test_a_release_in_words() -> None:
    text = str(release(2))
    assert text == ("round 2, 2 sites, accuracy 0.500, epsilon 0.200, c refused (norm), d late")

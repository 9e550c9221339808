"""Die at every write of a run, in turn; resume; and nobody can tell from the result."""

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Error, Message

from collegium.client import spool
from collegium.core import files
from collegium.privacy.ledger import Ledger
from collegium.server import disk, store

MakePlan = Callable[..., Any]


class Killed(BaseException):
    """What a kill looks like from inside: nothing catches it."""


@contextmanager
def killed_at(number: int) -> Iterator[list[str]]:
    """Raise at the write of that number, counted over spool, checkpoints, updates and ledgers.

    From then on nothing is written at all: a dead process does not tidy up.
    """
    seen: list[str] = []
    patch = pytest.MonkeyPatch()

    def wrap(name: str, real: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
        def write(*arguments: Any, **options: Any) -> Any:
            seen.append(name)
            if len(seen) > number or (len(seen) == number and not after):
                raise Killed(name)
            done = real(*arguments, **options)
            if len(seen) == number:
                raise Killed(name)
            return done

        return write

    after = number % 2 == 0  # half of them before the bytes are there, half after
    patch.setattr(disk, "write_atomic", wrap("store", files.write_atomic, after=after))
    patch.setattr(spool, "write_atomic", wrap("spool", files.write_atomic, after=after))
    patch.setattr(Ledger, "_append", wrap("ledger", Ledger._append, after=after))
    patch.setattr(store.Store, "keep_update", wrap("update", store.Store.keep_update, after=after))
    patch.setattr(store.Store, "commit", wrap("commit", store.Store.commit, after=after))
    try:
        yield seen
    finally:
        patch.undo()


def run_until_killed(lab: Any, number: int) -> int:
    """Run with a kill at that write; return how many writes there were."""
    dead: list[str] = []

    def wrap(name: str, app: Any) -> Any:
        def dying(message: Message, context: Context) -> Message:
            try:
                return app(message, context)
            except Killed:  # in a thread of the Grid: the main thread dies when it hears of it
                dead.append(name)
                return Message(Error(code=8, reason="killed"), reply_to=message)

        return dying

    def heard(*_: object, **__: object) -> None:
        if dead:
            raise Killed

    with killed_at(number) as seen, suppress(Killed):
        lab.run(wrap, workers=1, on_answer=heard, on_event=heard)
    return len(seen)


def epsilons(lab: Any) -> dict[str, float]:
    return {name: ledger.epsilon() for name, ledger in lab.consortium.ledgers.items()}


def test_die_at_every_write(make_lab: Any, make_plan: MakePlan) -> None:
    """Every write of a small run, dying there, and again at a random one while resuming."""
    plan = make_plan(2, rounds=2, codec="bf16", strategy={"iterate_average": 0.9})
    undisturbed = make_lab(plan, folder="undisturbed")
    writes = run_until_killed(undisturbed, 10**9)
    model, spent = undisturbed.rounds[-1].model_sha256, epsilons(undisturbed)
    expected = undisturbed.run().tobytes()
    rng = random.Random(0)
    for number in range(1, writes + 1):
        for again in (number, rng.randint(1, writes)):
            lab = make_lab(plan, folder=f"killed-{number}")
            run_until_killed(lab, again)
            lab.close()
        final = make_lab(plan, folder=f"killed-{number}")
        assert final.run().tobytes() == expected, f"killed at write {number}"
        history = final.store.history()
        assert [release.round for release in history] == [1, 2]
        assert all(release.sites == ("s0", "s1") for release in history)
        assert history[1].prev_sha256 == history[0].model_sha256
        assert history[1].model_sha256 == model
        assert epsilons(final) == spent
        assert final.reserves("s0") == final.reserves("s1") == 2
        final.close()
    # 2 rounds x (2 sites x (witness, reserve, spool, commit, update and its 2 files)
    # + commit and checkpoint)
    assert writes == 32


@pytest.mark.parametrize("name", ["reserve", "commit"])
def test_a_full_disk_at_a_site_is_a_decline_and_passes(
    make_lab: Any, make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The ledger of one site cannot be written in one round: it sits out, and comes back."""
    lab = make_lab(make_plan(2, rounds=3))
    ledger = lab.consortium.ledgers["s1"]
    real, calls = getattr(ledger, name), []

    def full(**options: Any) -> Any:
        calls.append(options["round"])
        if options["round"] == 2:
            raise sqlite3.OperationalError("database or disk is full")
        return real(**options)

    monkeypatch.setattr(ledger, name, full)
    lab.run()
    assert [release.refused for release in lab.rounds] == [(), (("s1", "internal"),), ()]
    assert lab.reserves("s1") == (2 if name == "reserve" else 3)


def test_resuming_a_finished_run_changes_nothing(make_lab: Any, make_plan: MakePlan) -> None:
    plan = make_plan(2, rounds=2)
    lab = make_lab(plan)
    vector = lab.run()
    before = {path: path.read_bytes() for path in _files(lab.folder)}
    lab.close()
    again = make_lab(plan)
    assert again.run().tobytes() == vector.tobytes()
    again.close()
    after = {path: path.read_bytes() for path in _files(lab.folder)}
    assert set(after) == set(before)
    for path, raw in before.items():
        if path.suffix in {".safetensors", ".reply", ".payload"}:
            assert after[path] == raw


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    ]

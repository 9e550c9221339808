"""A damaged checkpoint costs no round, no second training and no second charge."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import Interrupted, Refused

MakePlan = Callable[..., Any]


def files(lab: Any) -> list[Path]:
    """All checkpoints, oldest first."""
    return sorted((lab.folder / "rounds").glob("*.safetensors"))


def spent(lab: Any) -> list[int]:
    return [lab.reserves(name) for name in lab.sites]


@pytest.fixture
def finished(make_lab: Any, make_plan: MakePlan) -> Any:
    """Three rounds of three sites, done."""
    options: dict[str, Any] = {"strategy": {"name": "fedadam", "iterate_average": 0.9}}
    lab = make_lab(make_plan(3, rounds=3, codec="bf16", **options))
    lab.vector = lab.run()
    return lab


def resumed(lab: Any) -> list[dict[str, Any]]:
    """Run again over what is on the disk; return the events of its recovery."""
    events: list[dict[str, Any]] = []

    def heard(kind: str, **fields: Any) -> None:
        if kind == "restored":
            events.append(fields)

    assert lab.run(on_event=heard).tobytes() == lab.vector.tobytes()
    return events


def test_torn_and_flipped_at_every_512_bytes(finished: Any) -> None:
    newest, before = files(finished)[-1], spent(finished)
    raw = newest.read_bytes()
    places = sorted({*range(0, len(raw), 512), 7, len(raw) - 1})
    for place in places:
        for damaged in (raw[:place], raw[:place] + bytes([raw[place] ^ 4]) + raw[place + 1 :]):
            newest.write_bytes(damaged)
            (event,) = resumed(finished)
            assert event == {"round": 3, "how": "computed again from the kept updates"}
            assert newest.read_bytes() == raw
    assert spent(finished) == before
    assert resumed(finished) == []


def test_all_checkpoints_gone(finished: Any) -> None:
    kept, before = [path.read_bytes() for path in files(finished)], spent(finished)
    for path in files(finished):
        path.unlink()
    assert [event["round"] for event in resumed(finished)] == [1, 2, 3]
    assert [path.read_bytes() for path in files(finished)] == kept
    assert spent(finished) == before


@pytest.mark.parametrize("damage", ["payload", "header", "gone"])
def test_kept_updates_damaged_too(finished: Any, damage: str) -> None:
    """The sites are asked once more, and answer with the bytes that they have spooled."""
    before, raw = spent(finished), files(finished)[-1].read_bytes()
    files(finished)[-1].write_bytes(raw[:100])
    update = finished.folder / "updates" / "round-000003" / "s1"
    if damage == "gone":
        update.with_suffix(".header").unlink()
    else:
        path = update.with_suffix(f".{damage}")
        path.write_bytes(b"x" + path.read_bytes()[1:])
    assert resumed(finished) == [{"round": 3, "how": "from the bytes that sites have kept"}]
    assert files(finished)[-1].read_bytes() == raw
    assert spent(finished) == before
    assert [release.round for release in finished.store.history()] == [1, 2, 3]


def test_a_lost_round_waits_for_the_sites_that_gave_it(make_lab: Any, make_plan: MakePlan) -> None:
    """Another set of sites would give another model than the one that was committed."""
    from collegium.simulations.faults import raising

    lab = make_lab(make_plan(3, rounds=1, quorum=0.6))
    lab.vector = lab.run()
    files(lab)[0].unlink()
    (lab.folder / "updates" / "round-000001" / "s1.payload").unlink()
    with pytest.raises(Interrupted, match="s1 as well"):
        lab.run(lambda name, app: raising(app) if name == "s1" else app)
    assert resumed(lab) == [{"round": 1, "how": "from the bytes that sites have kept"}]


def test_who_had_no_part_in_a_lost_round_has_none_in_it_now(
    make_lab: Any, make_plan: MakePlan
) -> None:
    from collegium.simulations.faults import raising

    lab = make_lab(make_plan(3, rounds=1, quorum=0.6))
    lab.vector = lab.run(lambda name, app: raising(app) if name == "s1" else app)
    files(lab)[0].unlink()
    (lab.folder / "updates" / "round-000001" / "s0.payload").unlink()
    assert resumed(lab) == [{"round": 1, "how": "from the bytes that sites have kept"}]
    assert spent(lab) == [1, 0, 1]


# --- an older copy of the whole store -------------------------------------------------------


def older_copy(lab: Any) -> None:
    """Put the store back to where it stood after round 1; the sites have gone on."""
    lab.store.close()
    shutil.rmtree(lab.folder / "rounds")
    shutil.rmtree(lab.folder / "updates")
    shutil.copytree(lab.folder / "copy" / "rounds", lab.folder / "rounds")
    shutil.copytree(lab.folder / "copy" / "updates", lab.folder / "updates")
    from collegium.server.store import Store

    lab.store = Store(
        lab.folder / "rounds", plan_digest=lab.plan.digest, updates=lab.folder / "updates"
    )


def copy_after_round_1(lab: Any, release: Any) -> None:
    if release.round == 1:
        lab.store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for name in ("rounds", "updates"):
            shutil.copytree(lab.folder / name, lab.folder / "copy" / name)


def test_an_older_copy_goes_on_where_the_same_sites_answer(
    make_lab: Any, make_plan: MakePlan
) -> None:
    lab = make_lab(make_plan(3, rounds=3))
    vector = lab.run(on_round=lambda release: copy_after_round_1(lab, release))
    models = [release.model_sha256 for release in lab.store.history()]
    older_copy(lab)
    assert len(lab.store.history()) == 1
    assert lab.run().tobytes() == vector.tobytes()
    assert [release.model_sha256 for release in lab.store.history()] == models
    assert spent(lab) == [3, 3, 3]  # every answer came out of a spool


def test_an_older_copy_that_would_go_another_way_is_refused(
    make_lab: Any, make_plan: MakePlan
) -> None:
    """Round 2 had three answers and gets two now: nobody answers round 3 for that model."""
    from collegium.simulations.faults import raising

    lab = make_lab(make_plan(3, rounds=3, quorum=0.6))
    lab.run(on_round=lambda release: copy_after_round_1(lab, release))
    older_copy(lab)
    before = spent(lab)
    with pytest.raises(Refused, match="older copy"):
        lab.run(lambda name, app: raising(app) if name == "s2" else app)
    assert spent(lab) == before

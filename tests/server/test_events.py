"""events.jsonl: whole lines, read as they grow, whatever a crash left."""

import json
from pathlib import Path

import pytest

from collegium.server.events import EventLog, EventReader, all_events, release_event, release_of
from collegium.server.store import Release


def test_events_are_read_once_each_as_they_come(tmp_path: Path) -> None:
    log, reader = EventLog(tmp_path), EventReader(tmp_path)
    log.write("seen", site="north")
    assert [event["site"] for event in reader.new()] == ["north"]
    assert list(reader.new()) == []
    log.write("answered", round=1, site="north", code="ok")
    assert [event["code"] for event in reader.new()] == ["ok"]
    log.close()


def test_an_unfinished_line_waits_for_its_end(tmp_path: Path) -> None:
    reader = EventReader(tmp_path)
    line = json.dumps({"at": 1.0, "kind": "seen", "site": "north"})
    (tmp_path / "events.jsonl").write_text(line[:10])
    assert list(reader.new()) == []
    (tmp_path / "events.jsonl").write_text(line + "\n")
    assert [event["site"] for event in reader.new()] == ["north"]


def test_a_line_that_a_crash_cut_off_hides_nothing_after_it(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.write("seen", site="north")
    log.close()
    path = tmp_path / "events.jsonl"
    path.write_bytes(path.read_bytes() + b'{"at": 2, "kind": "se')
    log = EventLog(tmp_path)
    log.write("seen", site="south")
    log.close()
    assert [event["site"] for event in all_events(tmp_path)] == ["north", "south"]


def test_what_was_there_before_can_be_passed_over(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    log.write("seen", site="north")
    reader = EventReader(tmp_path)
    reader.skip()
    log.write("seen", site="south")
    assert [event["site"] for event in reader.new()] == ["south"]
    log.close()


def test_only_known_kinds_and_finite_figures_are_written(tmp_path: Path) -> None:
    log = EventLog(tmp_path)
    with pytest.raises(ValueError, match="rumour"):
        log.write("rumour")
    with pytest.raises(ValueError, match="JSON"):
        log.write("round", seconds=float("nan"))
    log.close()
    assert all_events(tmp_path) == []


def test_lines_of_others_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text('[1, 2]\n{"kind": "rumour"}\n{"at": 1, "kind": "seen", "site": "a"}\n')
    assert [event["site"] for event in all_events(tmp_path)] == ["a"]


def test_a_release_survives_the_round_trip() -> None:
    release = Release(
        round=3,
        model_sha256="sha256:a",
        prev_sha256="sha256:b",
        sites=("north", "south"),
        refused=(("east", "norm"),),
        late=("west",),
        epsilon_by_site={"north": 0.5},
        metrics={"accuracy": 0.9},
    )
    assert release_of(json.loads(json.dumps(release_event(release)))) == release

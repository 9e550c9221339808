"""Publishing from a run's folder: the next version, the same bytes, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.core.errors import (
    GateFailed,
    InvalidInput,
    MissingInput,
    NotAvailable,
    OutputExists,
    Refused,
)
from collegium.core.signing import generate_key, save_private
from collegium.edge.device import verify_bundle
from collegium.edge.publication_index import read_index
from collegium.server.public_file import write_public
from collegium.server.publish import run_key
from collegium.server.result import FILE
from collegium.simulations.demo import demo_plan
from collegium.simulations.publishing import Wish, publish
from collegium.simulations.records import split_records
from collegium.simulations.run import simulate, with_overrides

Spoil = Callable[..., None]
DAY = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the demo on tables, its edge stage included."""
    plan = with_overrides(demo_plan("breast-cancer"), rounds=8)
    assert plan.simulation is not None
    plan = replace(plan, simulation=replace(plan.simulation, baselines=False))
    folder = tmp_path_factory.mktemp("runs") / "run"
    simulate(plan, out=folder)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def edit(run: Path, **changes: Any) -> None:
    values = json.loads((run / FILE).read_bytes()) | changes
    (run / FILE).write_text(json.dumps(values))


def predicate(bundle: Path, run: Path) -> dict[str, Any]:
    key = run_key(run).public_key()
    return verify_bundle(bundle, [key], allow_simulated=True).predicate


def test_the_same_run_and_day_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    made = [publish(run, Wish(out=tmp_path / place / "b", created=DAY)) for place in ("one", "two")]
    assert made[0]["bundle_sha256"] == made[1]["bundle_sha256"]
    first, second = (tmp_path / place / "b" for place in ("one", "two"))
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {
        p.name: p.read_bytes() for p in second.iterdir()
    }


def test_versions_follow_the_field_and_the_publication(run: Path, tmp_path: Path) -> None:
    site = tmp_path / "public"
    first = publish(run, Wish(out=tmp_path / "v1", to=site))
    assert first["version"] == 1 and Path(first["published"]).parent == site
    second = publish(run, Wish(out=tmp_path / "v2", since=tmp_path / "v1", to=site))
    told = predicate(tmp_path / "v2", run)
    assert (second["version"], told["version"]) == (2, 2)
    assert told["previous"] == first["bundle_sha256"]
    assert second["comparison"]["accuracy_gain"] == 0.0
    assert publish(run, Wish(out=tmp_path / "v3", since=run))["version"] == 2
    with pytest.raises(InvalidInput, match="ersion 2 is in the field"):
        publish(run, Wish(out=tmp_path / "v4", version=2, to=site))


def test_what_would_be_refused_in_the_end_is_refused_first(run: Path, tmp_path: Path) -> None:
    """Nothing is distilled for a folder of somebody else, or for a day that has not come."""
    stages: list[str] = []

    def tried(**words: Any) -> None:
        wish = Wish(out=tmp_path / "b", **words)
        publish(run, wish, progress=lambda stage, _: stages.append(stage))

    thesis = tmp_path / "mine" / "thesis.txt"
    thesis.parent.mkdir()
    thesis.write_text("five years of work")
    with pytest.raises(OutputExists, match="no publication"):
        tried(to=thesis.parent)
    with pytest.raises(MissingInput, match="too long"):
        tried(to=tmp_path / ("x" * 300))
    ahead = datetime.now(UTC) + timedelta(days=2)
    with pytest.raises(Refused, match="future"):
        tried(created=ahead)
    site, stranger = tmp_path / "public", tmp_path / "stranger.pem"
    publish(run, Wish(out=tmp_path / "v1", to=site))
    save_private(generate_key(), stranger)
    with pytest.raises(Refused, match="BAD SIGNATURE"):
        tried(to=site, keys=[stranger])
    assert stages == [] and not (tmp_path / "b").exists()


def test_a_lost_folder_is_continued_from_the_book(run: Path, tmp_path: Path) -> None:
    site = tmp_path / "public"
    publish(run, Wish(out=tmp_path / "v1", to=site))
    shutil.rmtree(site)
    again = publish(run, Wish(out=tmp_path / "v2", to=site))
    assert again["version"] == 2  # devices that took version 1 take it
    key = run_key(run).public_key()
    assert read_index(site, [key]).sequence == 2


def test_several_members_sign(run: Path, tmp_path: Path) -> None:
    keys = [generate_key(), generate_key()]
    paths = [tmp_path / f"{index}.pem" for index in range(2)]
    for key, path in zip(keys, paths, strict=True):
        save_private(key, path)
    publish(run, Wish(out=tmp_path / "b", keys=paths))
    trusted = [key.public_key() for key in keys]
    assert verify_bundle(tmp_path / "b", trusted, threshold=2, allow_simulated=True)


def test_a_worse_model_than_the_one_in_the_field(run: Path, tmp_path: Path) -> None:
    """The field's labels are right where the new model's are turned round: a real second run."""
    publish(run, Wish(out=tmp_path / "v1"))
    records = split_records(demo_plan("breast-cancer"))
    assert records.test.y is not None
    turned = replace(records.test, y=1 - records.test.y)
    write_public(run, turned)  # both are bad on these, and equally so: no worse
    assert publish(run, Wish(out=tmp_path / "v2", since=tmp_path / "v1"))["verified"]
    worse = Path(shutil.copytree(run, tmp_path / "worse"))
    plan = with_overrides(demo_plan("breast-cancer"), rounds=1, epsilon=0.1)
    shutil.rmtree(worse)
    simulate(plan, out=worse)
    with pytest.raises(GateFailed, match="may not follow version 1"):
        publish(worse, Wish(out=tmp_path / "v3", since=run))
    assert not (tmp_path / "v3").exists()


def test_the_public_set_of_a_real_run(run: Path, tmp_path: Path) -> None:
    """A run that is no simulation brings its public.npz, or is told to."""
    edit(run, simulated=False)
    with pytest.raises(MissingInput, match="no public test part"):
        publish(run, Wish(out=tmp_path / "b"))
    write_public(run, split_records(demo_plan("breast-cancer")).test)
    found = publish(run, Wish(out=tmp_path / "b"))
    assert found["verified"] and not found["simulated"]
    assert verify_bundle(tmp_path / "b", [run_key(run).public_key()])


def test_private_records_are_refused_with_the_cure(run: Path, tmp_path: Path) -> None:
    test = split_records(demo_plan("breast-cancer")).test
    path = tmp_path / "mine.npz"
    for option in ("test", "transfer"):
        for origin, error in (("private", Refused), ("mine", InvalidInput)):
            np.savez(path, x=test.x, y=test.y, name="records", origin=origin)
            with pytest.raises(error, match=r"public.*synthetic"):
                publish(run, Wish(out=tmp_path / "b", **{option: path}))
    assert not (tmp_path / "b").exists()


def test_what_cannot_be_published(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    with pytest.raises(MissingInput, match="no finished run"):
        publish(tmp_path, Wish(out=out))
    out.mkdir()
    (out / "model.onnx").write_bytes(b"x")
    with pytest.raises(OutputExists):
        publish(run, Wish(out=out))
    (run / "model.safetensors").write_bytes(b"another")
    with pytest.raises(InvalidInput, match="not the model of this run"):
        publish(run, Wish(out=tmp_path / "c"))
    edit(run, plan_sha256="sha256:00")
    with pytest.raises(InvalidInput, match="is not the"):
        publish(run, Wish(out=tmp_path / "c"))
    edit(run, custom=True)
    with pytest.raises(NotAvailable, match="plan does not describe"):
        publish(run, Wish(out=tmp_path / "c"))
    edit(run, seeds=[1, 2])
    with pytest.raises(MissingInput, match="seeds"):
        publish(run, Wish(out=tmp_path / "c"))


def test_a_data_set_that_changed_since_the_run(run: Path, tmp_path: Path) -> None:
    """Records that a site trained on could be taken for public ones."""
    stage = run / "stages" / "public-sets.json"
    known = json.loads(stage.read_bytes())
    stage.write_text(json.dumps(known | {"test": "sha256:00"}))
    with pytest.raises(InvalidInput, match="not what it was"):
        publish(run, Wish(out=tmp_path / "b"))
    stage.unlink()
    with pytest.raises(InvalidInput, match="earlier version"):
        publish(run, Wish(out=tmp_path / "b"))
    assert not (tmp_path / "b").exists()


def test_a_transfer_set_from_outside_needs_no_labels(run: Path, tmp_path: Path) -> None:
    x = split_records(demo_plan("breast-cancer")).test.x
    path = tmp_path / "open.npz"
    np.savez(path, x=np.repeat(x, 2, axis=0), name="open records", origin="public")
    found = publish(run, Wish(out=tmp_path / "b", transfer=path))
    assert found["verified"]
    told = json.loads((tmp_path / "b" / "privacy.json").read_bytes())
    assert told["edge_inputs"]["selftest"]["name"] == "open records#selftest"


def test_timings_of_another_candidate_do_not_change_the_bytes(run: Path, tmp_path: Path) -> None:
    first = publish(run, Wish(out=tmp_path / "v1", created=DAY))
    kept = run / "stages" / "edge-timings.json"
    known = json.loads(kept.read_bytes())
    row = next(iter(known.values()))
    kept.write_text(json.dumps({"sha256:other": row}))
    publish(run, Wish(out=tmp_path / "v2", created=DAY))
    again = json.loads(kept.read_bytes())
    assert set(again) == {"sha256:other", *known}
    kept.write_text(json.dumps(again | known))
    third = publish(run, Wish(out=tmp_path / "v3", created=DAY))
    assert third["bundle_sha256"] == first["bundle_sha256"]


def test_an_audit_of_another_model_is_not_quoted(run: Path, tmp_path: Path) -> None:
    (run / "audit.json").write_text(json.dumps({"model_sha256": "sha256:00", "leakage": None}))
    with pytest.raises(InvalidInput, match="no audit of this run"):
        publish(run, Wish(out=tmp_path / "b"))
    digest = json.loads((run / FILE).read_bytes())["model_sha256"]
    (run / "audit.json").write_text(json.dumps({"model_sha256": digest, "leakage": None}))
    publish(run, Wish(out=tmp_path / "b"))
    told = json.loads((tmp_path / "b" / "parity.json").read_bytes())
    assert told["leakage_audit"] == "not run"

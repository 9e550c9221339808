"""``simulate`` with one's own objects: results, refusals, and that a result is not invented."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.core.errors import Interrupted, InvalidInput, OutputExists
from collegium.core.plan import Plan
from collegium.privacy.statement import NO_GUARANTEE
from collegium.simulations.listener import Listener
from collegium.simulations.run import simulate

MakePlan = Callable[..., Plan]


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, make_plan: MakePlan, make_records: Any
) -> Any:
    """One small finished run on records that were passed in."""
    plan = make_plan(3, rounds=4, evaluation="every:2")
    heard: list[int] = []
    result = simulate(
        plan,
        sites=make_records(plan),
        out=tmp_path_factory.mktemp("run") / "run",
        on_round=lambda release: heard.append(release.round),
    )
    assert heard == [1, 2, 3, 4]
    return plan, result


def test_result_json(finished: Any) -> None:
    plan, result = finished
    values = json.loads((result.folder / "result.json").read_text())
    assert values["simulated"] is True
    assert values["custom"] is True
    assert values["plan_sha256"] == plan.digest
    assert values["rounds"] == 4
    assert [entry["round"] for entry in values["history"]] == [1, 2, 3, 4]
    assert all(entry["sites"] == ["s0", "s1", "s2"] for entry in values["history"])
    assert values["privacy"]["guarantee"] == NO_GUARANTEE  # seeded noise is none
    assert values["edge"] is values["local"] is values["pooled"] is values["open_model"] is None
    spent = [entry["epsilon"] for entry in values["history"]]
    assert spent == sorted(set(spent))
    assert spent[-1] == values["epsilon_max"] <= plan.privacy.epsilon
    assert values["seconds"] > 0
    assert values["peak_rss_bytes"] > 1e6


def test_only_the_declared_vector_left_a_site(finished: Any) -> None:
    plan, result = finished
    kept = sorted((result.folder / "updates" / "round-000002").iterdir())
    assert [path.name for path in kept] == [
        f"{site.name}.{kind}" for site in plan.sites for kind in ("header", "payload")
    ]
    for path in kept:
        if path.suffix == ".payload":
            assert path.stat().st_size == 4 * 8
        else:
            header = json.loads(path.read_bytes().split(b"\n")[0])
            assert set(header) == {
                "job", "site", "payload_sha256", "round", "attempt", "base_sha256", "layout",
                "spec", "ledger_head", "codec", "metrics",
            }  # fmt: skip


def test_the_model_is_the_released_vector(finished: Any) -> None:
    _, result = finished
    from collegium.server.models_out import read_vector_file

    vector, layout = read_vector_file(result.folder)
    model = result.model
    assert not model.training
    flat = np.concatenate(
        [model.get_parameter(name).detach().numpy().reshape(-1) for name in layout.names]
    )
    np.testing.assert_array_equal(flat, vector)


def test_a_finished_run_is_left_as_it_is(
    finished: Any, make_records: Any, make_plan: MakePlan
) -> None:
    plan, result = finished
    before = (result.folder / "result.json").read_bytes()
    again = simulate(plan, sites=make_records(plan), out=result.folder, resume=True)
    assert (result.folder / "result.json").read_bytes() == before
    assert again.epsilon_by_site == result.epsilon_by_site
    with pytest.raises(OutputExists):
        simulate(plan, sites=make_records(plan), out=result.folder)
    cheaper = make_plan(3, rounds=4, evaluation="every:2", privacy={"epsilon": 1.0})
    with pytest.raises(OutputExists):  # nobody is handed epsilon 3 who asked for 1
        simulate(cheaper, sites=make_records(plan), out=result.folder, resume=True)


def test_the_same_seed_is_the_same_model_and_another_is_not(
    finished: Any, make_records: Any, tmp_path: Path
) -> None:
    plan, result = finished
    same = simulate(plan, sites=make_records(plan), out=tmp_path / "same")
    assert same.values["model_sha256"] == result.values["model_sha256"]
    other = simulate(plan, sites=make_records(plan), out=tmp_path / "other", seed=99)
    assert other.values["model_sha256"] != result.values["model_sha256"]
    assert other.epsilon_by_site == result.epsilon_by_site


def test_without_privacy_there_is_no_epsilon(
    make_plan: MakePlan, make_records: Any, tmp_path: Path
) -> None:
    plan = make_plan(2, rounds=2, privacy={"enabled": False})
    result = simulate(plan, sites=make_records(plan), out=tmp_path / "run")
    text = json.dumps(result.values["history"]) + json.dumps(result.values["sites"])
    assert result.values["privacy"] is None
    assert result.values["epsilon_max"] is None
    assert set(result.epsilon_by_site.values()) == {None}
    assert '"epsilon": 0' not in text


def test_a_listener_hears_the_stages(
    make_plan: MakePlan, make_records: Any, tmp_path: Path
) -> None:
    heard: list[str] = []

    class Ears(Listener):
        def stage(self, name: str) -> None:
            heard.append(name)

        def answered(self, round: int, site: str, code: str) -> None:
            heard.append(f"{round} {site} {code}")

    plan = make_plan(1, rounds=1)
    simulate(plan, sites=make_records(plan), out=tmp_path / "run", listener=Ears())
    assert heard == ["data", "rounds", "1 s0 ok", "report"]


def test_missing_records(make_plan: MakePlan, make_records: Any, tmp_path: Path) -> None:
    plan = make_plan(2, rounds=1)
    records = make_records(plan)
    del records["s1"]
    with pytest.raises(InvalidInput, match="s1"):
        simulate(plan, sites=records, out=tmp_path / "run")


def test_a_full_disk_stops_the_run_and_resume_goes_on(
    make_plan: MakePlan, make_records: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collegium.server import disk

    plan, out, write = make_plan(2, rounds=3), tmp_path / "run", disk.write_atomic
    writes: list[Path] = []

    def full(path: Path, *chunks: bytes) -> None:
        writes.append(path)
        if "round-000002.safetensors" in path.name:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, *chunks)

    whole = simulate(plan, sites=make_records(plan), out=tmp_path / "whole")
    monkeypatch.setattr(disk, "write_atomic", full)
    with pytest.raises(Interrupted, match="No space left"):
        simulate(plan, sites=make_records(plan), out=out)
    assert len(writes) > 0
    monkeypatch.setattr(disk, "write_atomic", write)
    again = simulate(plan, sites=make_records(plan), out=out, resume=True)
    assert again.values["model_sha256"] == whole.values["model_sha256"]
    assert again.epsilon_by_site == whole.epsilon_by_site

"""result.json: what the contract names, read back, refused when torn, combined over seeds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import InvalidInput, MissingInput
from collegium.core.plan import Plan
from collegium.server.result import (
    combine,
    evaluation_of,
    history_of,
    read_result,
    sites_of,
    versions,
    write_result,
)
from collegium.server.store import Release

MakePlan = Callable[..., Plan]


def test_write_and_read(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match="resume"):
        read_result(tmp_path)
    write_result(tmp_path, {"schema": 1, "x": 0.1})
    assert read_result(tmp_path) == {"schema": 1, "x": 0.1}
    with pytest.raises(ValueError):
        write_result(tmp_path, {"schema": 1, "x": float("nan")})
    assert read_result(tmp_path)["x"] == 0.1
    for text in ("", "{", "[]", '{"schema": 2}', "null"):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(InvalidInput):
            read_result(tmp_path)


def test_history_by_hand() -> None:
    release = Release(
        round=3, model_sha256="m", prev_sha256="p", sites=("a",), refused=(("b", "norm"),),
        late=("c",), epsilon_by_site={"a": 0.5, "b": 0.7}, bytes_up=1, bytes_down=2, seconds=3.0,
    )  # fmt: skip
    (entry,) = history_of([release])
    assert entry["refused"] == [{"site": "b", "code": "norm"}]
    assert (entry["sites"], entry["late"]) == (["a"], ["c"])
    assert entry["epsilon"] == 0.7
    assert entry["metrics"] is None
    no_privacy = Release(round=1, model_sha256="m", prev_sha256="p", sites=("a",))
    assert history_of([no_privacy])[0]["epsilon"] is None


def test_sites_with_and_without_privacy(make_plan: MakePlan) -> None:
    plan = make_plan(2)
    privacy = {
        "epsilon_by_site": {name: {"epsilon": 1.0, "epsilon_total": 2.0} for name in ("s0", "s1")}
    }
    first, second = sites_of(plan, privacy, {"s0": {"accuracy": 0.5}})
    assert (first["epsilon"], first["epsilon_total"], first["delta"]) == (1.0, 2.0, 1e-3)
    assert first["metrics"] == {"accuracy": 0.5}
    assert second["metrics"] is None
    for entry in sites_of(plan, None, {}):
        assert entry["epsilon"] is entry["epsilon_total"] is entry["delta"] is None


def test_noised_counts_become_an_accuracy_within_its_range(make_plan: MakePlan) -> None:
    plan = make_plan(2, evaluation={"origin": "private"})
    privacy = {
        "epsilon_by_site": {name: {"epsilon": 1.0, "epsilon_total": 2.0} for name in ("s0", "s1")}
    }
    reports = {"s0": {"correct": 9.0, "records": 12.0}, "s1": {"correct": 30.0, "records": -3.5}}
    first, second = sites_of(plan, privacy, reports)
    assert first["metrics"] == {"accuracy": 0.75}
    assert second["metrics"] is None  # the noise left nothing to divide by
    found = evaluation_of(plan, reports)
    assert (found["origin"], found["accuracy"]) == ("private", 1.0)  # 39 of 8.5, cut
    assert found["noise_std"] > 0
    public = evaluation_of(make_plan(2), {"s0": {"accuracy": 0.5}})
    assert (public["accuracy"], public["noise_std"]) == (None, None)


def test_the_plan_decides_what_a_report_is_and_not_the_keys_that_a_site_chose(
    make_plan: MakePlan,
) -> None:
    counts = {"correct": 1e9, "records": 1.0}
    public, private = make_plan(2), make_plan(2, evaluation={"origin": "private"})
    assert evaluation_of(public, {"s0": counts, "s1": {"accuracy": 0.5}})["accuracy"] is None
    assert evaluation_of(private, {"s0": {"accuracy": 1.0}})["accuracy"] is None
    assert sites_of(private, None, {"s0": {"accuracy": 1.0}})[0]["metrics"] is None


def test_medians_over_seeds_by_hand() -> None:
    def run(seed: int, accuracy: float, *, verified: bool, size: int) -> dict[str, Any]:
        return {
            "schema": 1, "seeds": [seed], "seconds": 2.0, "peak_rss_bytes": size,
            "model_sha256": f"m{seed}", "plan_sha256": "p",
            "global": {"accuracy": accuracy, "metrics": {"auc": accuracy / 2}},
            "sites": [{"name": "a", "epsilon": 1.0 + seed}],
            "edge": {"verified": verified, "size_bytes": size}, "pooled": None,
        }  # fmt: skip

    runs = [
        run(0, 0.9, verified=True, size=10),
        run(1, 0.5, verified=False, size=30),
        run(2, 0.8, verified=True, size=20),
    ]
    found = combine(runs)
    assert found["global"] == {"accuracy": 0.8, "metrics": {"auc": 0.4}}
    assert found["sites"] == [{"name": "a", "epsilon": 2.0}]
    assert found["edge"] == {"verified": False, "size_bytes": 20}  # all seeds must verify
    assert found["seeds"] == [0, 1, 2]
    assert (found["seconds"], found["peak_rss_bytes"]) == (2.0, 30)
    assert found["model_sha256"] is None
    assert found["pooled"] is None
    assert found["runs"] == runs


def test_versions_name_what_decides_the_numbers() -> None:
    assert {"python", "collegium", "flwr", "torch", "opacus", "dp-accounting"} <= set(versions())

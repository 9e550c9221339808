"""A whole run with common statistics and calibration: figures, ledgers, audit, baselines."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.client.train import Trainer
from collegium.core.messages import ONCE
from collegium.core.plan import Plan
from collegium.core.plan_fitting import Calibration, Statistics
from collegium.core.signing import fingerprint, load_private
from collegium.models import registry
from collegium.models.fitted import MEAN, OFFSET, SCALE
from collegium.privacy import ledger_verify
from collegium.privacy.noise import SeededNoise
from collegium.server.models_out import read_vector_file
from collegium.simulations.audit import audit_run
from collegium.simulations.audit_surveys import CHARGED, NOISE
from collegium.simulations.consortium import KEYS
from collegium.simulations.fitting import with_calibration, with_statistics
from collegium.simulations.run import simulate
from collegium.simulations.short_run import short_run

MakePlan = Callable[..., Any]


def fitting(plan: Plan, **changes: Any) -> Plan:
    """The plan with common statistics and calibration."""
    wanted = {"statistics": Statistics(share=0.3), "calibration": Calibration(bins=8, share=0.3)}
    return replace(plan, **(wanted | changes))


def cancer_plan(make_plan: MakePlan, *, sites: int = 3, rounds: int = 3) -> Plan:
    """Real records of a breast cancer study, dealt to some sites."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    lowest, highest = found.data.min(axis=0), found.data.max(axis=0)
    bounds = {
        str(name).replace(" ", "-"): (float(low), float(high))
        for name, low, high in zip(found.feature_names, lowest, highest, strict=True)
    }
    size = 750 // sites
    plan = make_plan(sites, rounds=rounds, public_records=size, privacy={"epsilon": 8.0})
    model = replace(plan.model, classes=tuple(map(str, found.target_names)), bounds=bounds)
    return replace(fitting(plan), model=model)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, make_plan: MakePlan) -> Any:
    """One finished private run of the plan's own records."""
    plan = cancer_plan(make_plan)
    return plan, simulate(plan, out=tmp_path_factory.mktemp("run") / "run")


def test_result_json_tells_what_was_fitted(finished: Any) -> None:
    plan, result = finished
    values = json.loads((result.folder / "result.json").read_text())
    told = values["statistics"]
    assert told["features"] == list(plan.model.bounds) == list(told["mean"])
    assert told["sites"] == values["calibration"]["sites"] == ["s0", "s1", "s2"]
    for name, (low, high) in plan.model.bounds.items():
        assert low <= told["mean"][name] <= high
        assert 0 < told["deviation"][name] <= (high - low) / 2
    assert values["epsilon_max"] <= plan.privacy.epsilon
    assert values["epsilon_max"] > 0.99 * plan.privacy.epsilon
    released = values["privacy"]["released"]
    assert ["noised sums" in line for line in released] == [True, False, False, False]
    assert ["by class" in line for line in released] == [False, False, True, False]


def test_the_model_holds_them(finished: Any) -> None:
    _, result = finished
    told = result.values["statistics"]
    buffers = dict(result.model.named_buffers())
    low, high = buffers["preprocess.bounds.low"], buffers["preprocess.bounds.high"]
    mean = (low + high) / 2 + (high - low) / 2 * buffers[MEAN]
    np.testing.assert_allclose(mean.numpy(), list(told["mean"].values()), rtol=1e-4)
    vector, layout = read_vector_file(result.folder)
    assert layout.names[-1] == OFFSET and vector.shape == (layout.size,)


def test_the_ledgers_verify(finished: Any, capsys: pytest.CaptureFixture[str]) -> None:
    _, result = finished
    for path in sorted((result.folder / "ledgers").glob("*.sqlite")):
        key = load_private(result.folder / KEYS / f"{path.stem}.pem").public_key()
        assert ledger_verify.main([str(path), "--key", fingerprint(key)]) == 0
        told = json.loads(capsys.readouterr().out)
        assert 0.99 * told["budget"] < told["epsilon"] <= told["budget"] == 8.0


@pytest.fixture
def audited(finished: Any, tmp_path: Path) -> Path:
    """A copy of the finished run that may be tampered with."""
    import shutil

    return Path(shutil.copytree(finished[1].folder, tmp_path / "run"))


def verdicts(folder: Path) -> dict[str, set[str]]:
    """The audit's verdicts by test."""
    found: dict[str, set[str]] = {}
    for row in audit_run(folder)["tests"]:
        found.setdefault(row["name"], set()).add(row["verdict"])
    return found


def test_the_audit_passes(audited: Path) -> None:
    found = verdicts(audited)
    assert found[CHARGED] == found[NOISE] == {"passed"}
    assert not any("failed" in each for each in found.values())


def test_the_audit_finds_an_answer_that_is_not_the_one_paid_for(audited: Path) -> None:
    path = next((audited / "sites" / "s1" / "spool").glob(f"*-{ONCE:06d}-2.reply"))
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0")
    assert verdicts(audited)[CHARGED] == {"passed", "failed"}


def test_the_audit_finds_sums_without_noise(audited: Path) -> None:
    with closing(sqlite3.connect(audited / "rounds" / "rounds.sqlite")) as database, database:
        row = database.execute("SELECT value FROM run WHERE key = 'once.statistics'").fetchone()
        values = json.loads(row[0])
        payload = np.frombuffer(bytes.fromhex(values["answers"]["s0"]["payload"]), dtype="<f4")
        values["answers"]["s0"]["payload"] = (10 * payload).astype("<f4").tobytes().hex()
        database.execute(
            "UPDATE run SET value = ? WHERE key = 'once.statistics'", (json.dumps(values),)
        )
    found = verdicts(audited)
    assert found[NOISE] == {"failed"}
    assert "failed" in found[CHARGED]


def test_without_privacy_they_are_the_pooled_figures(
    make_plan: MakePlan, make_records: Any, tmp_path: Path
) -> None:
    plan = fitting(make_plan(3, rounds=2, privacy={"enabled": False}))
    records = make_records(plan)
    values = simulate(plan, sites=records, out=tmp_path / "run").values
    x = np.concatenate([each.train_x for each in records.values()]).astype(np.float64)
    told = values["statistics"]
    np.testing.assert_allclose(list(told["mean"].values()), x.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(list(told["deviation"].values()), x.std(axis=0), rtol=1e-5)
    assert told["epsilon_alone"] is None and values["calibration"]["epsilon_alone"] is None
    assert values["epsilon_max"] is None


def test_rare_categories_and_missing_numbers(
    make_plan: MakePlan, make_records: Any, tmp_path: Path
) -> None:
    """A category is kept by its count over all sites; a missing number is not counted."""
    small = make_plan(2, rounds=1, privacy={"enabled": False})
    model = replace(small.model, categories={"kind": ("a", "b", "c")}, missing="mean")
    plan = replace(small, model=model, statistics=Statistics(vocabulary=True, min_count=8))
    records: dict[str, Any] = {}
    for number, (name, each) in enumerate(make_records(small).items()):
        parts = []
        for x in (each.train_x, each.test_x):
            kinds = np.where(np.arange(len(x)) < 5, number, 2)  # five of a here, five of b there
            parts.append(np.column_stack([x, kinds]).astype(np.float32))
        parts[0][::4, 1] = np.nan
        records[name] = replace(each, train_x=parts[0], test_x=parts[1])
    told = simulate(plan, sites=records, out=tmp_path / "run").values["statistics"]
    assert told["kept"] == {"kind": ["c"]}
    x = np.concatenate([each.train_x[:, :3] for each in records.values()]).astype(np.float64)
    np.testing.assert_allclose(list(told["mean"].values()), np.nanmean(x, axis=0), atol=1e-6)
    np.testing.assert_allclose(list(told["deviation"].values()), np.nanstd(x, axis=0), rtol=1e-5)


def test_a_pooled_baseline_has_the_same_statistics(make_plan: MakePlan, make_records: Any) -> None:
    plan = fitting(make_plan(3, rounds=1, privacy={"enabled": False}))
    records = make_records(plan)
    trainer = Trainer(registry.build(plan.model), plan)
    opened = with_statistics(plan, trainer, records)
    parts = trainer.whole.split(opened)
    x = np.concatenate([each.train_x for each in records.values()]).astype(np.float64)
    np.testing.assert_allclose(parts[MEAN], x.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(parts[SCALE], x.std(axis=0), rtol=1e-6)
    size = trainer.layout.size
    assert np.array_equal(opened[:size], trainer.open_vector[:size])


def test_a_local_baseline_is_as_noised_as_its_site(make_plan: MakePlan, make_records: Any) -> None:
    plan = fitting(make_plan(3, rounds=1))
    trainer, noise = Trainer(registry.build(plan.model), plan), SeededNoise(3)
    own = {"s1": make_records(plan)["s1"]}
    exact = with_statistics(plan, trainer, own)
    one, same, other = (
        with_statistics(plan, trainer, own, noise=noise, label=label)
        for label in ("local:s1", "local:s1", "elsewhere")
    )
    assert np.array_equal(one, same)
    assert not np.array_equal(one, exact) and not np.array_equal(one, other)
    moved = exact.copy()
    moved[:3], moved[3:6], moved[7] = [-4.0, 0, 0], [4.0, 0, 0], 3.0
    found = trainer.whole.split(with_calibration(plan, trainer, moved, own))[OFFSET]
    assert found[0] == 0 and found[1] < -1  # a shift of three is mostly undone


def test_a_short_run_has_them_too(make_plan: MakePlan, make_records: Any, tmp_path: Path) -> None:
    """The shadow run of the audit is the run of the plan."""
    plan = fitting(make_plan(2, rounds=2))
    records = make_records(plan)
    short = short_run(plan, records, tmp_path / "short")
    full = simulate(plan, sites=records, out=tmp_path / "full")
    assert np.array_equal(short.vector, read_vector_file(full.folder)[0])
    assert {len(spend) for spend in short.spends.values()} == {3}


def test_an_own_strategy_never_sees_the_constants(
    make_plan: MakePlan, make_records: Any, tmp_path: Path
) -> None:
    """It may do to the vector what it likes; the constants stay what all sites have counted."""
    sizes: set[int] = set()

    class Odd:
        def init(self, layout: Any) -> dict[str, Any]:
            return {"sum": np.zeros(layout.size)}

        def fold(self, state: dict[str, Any], update: Any, weight: float) -> dict[str, Any]:
            sizes.add(len(update))
            return {"sum": state["sum"] + weight * update}

        def finish(self, state: dict[str, Any], base: Any) -> Any:
            sizes.add(len(base))
            vector = (0.5 * base + 1).astype(np.float32)
            return vector, {"sum": np.zeros(len(base)), "released": 2 * vector}

    plan = fitting(make_plan(2, rounds=2), calibration=None)
    result = simulate(plan, sites=make_records(plan), strategy=Odd(), out=tmp_path / "run")
    vector, layout = read_vector_file(result.folder)
    assert sizes == {8} and vector[:8].tolist() == [3.0] * 8
    told = list(result.values["statistics"]["mean"].values())
    np.testing.assert_allclose(layout.split(vector)[MEAN], told, rtol=1e-6)


@pytest.mark.slow
def test_up_gives_the_simulator_s_model(make_plan: MakePlan, tmp_path: Path) -> None:
    """Real processes, real Flower: byte for byte the same constants, rounds and threshold."""
    from collegium.simulations.up import up

    plan = cancer_plan(make_plan, sites=2, rounds=1)
    simulated = simulate(plan, out=tmp_path / "simulated")
    processes = up(plan, out=tmp_path / "up")
    assert processes.values["model_sha256"] == simulated.values["model_sha256"]
    for name in ("statistics", "calibration"):
        assert processes.values[name] == simulated.values[name]
    assert verdicts(tmp_path / "up")[CHARGED] == {"passed"}

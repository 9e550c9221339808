"""A head that warms up: the head alone moves, at full guarantee, and the audit knows it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collegium.client import train as training
from collegium.client.evidence import Evidence, read_evidence
from collegium.client.phases import Phases, live_coordinates, live_sizes
from collegium.client.train import Trainer, augment_of
from collegium.core.errors import InvalidInput
from collegium.core.mechanism import MechanismSpec
from collegium.core.plan import ModelRef, Plan
from collegium.core.plan_training import Training
from collegium.data.site_data import SiteData
from collegium.models import registry
from collegium.privacy.conformance import judge
from collegium.privacy.conformance_live import LIVE
from collegium.privacy.conformance_noise import noise_findings
from collegium.privacy.conformance_records import Attempt
from collegium.privacy.conformance_statistics import deterministic_findings
from collegium.privacy.derive import mechanism
from collegium.privacy.noise import SeededNoise
from collegium.simulations.audit_moving import moving_findings

torch.set_num_threads(1)
MakePlan = Callable[..., Plan]
GLYPHS = ModelRef(
    name="collegium:glyph-cnn", task="classification", trainable="bias", classes=tuple("0123456789")
)
RNG = np.random.default_rng(5)
X = RNG.integers(0, 17, (30, 8, 8)).astype(np.float32)
DATA = SiteData(
    asset="a", train_x=X, train_y=RNG.integers(0, 10, 30).astype(np.int64), test_x=X[:0],
    test_y=np.zeros(0, dtype=np.int64),
)  # fmt: skip


def plan_of(make_plan: MakePlan, trainable: str = "bias", **training: Any) -> Plan:
    plan = make_plan(1, rounds=4, local_steps=2)
    model = replace(GLYPHS, trainable=trainable)
    return replace(plan, model=model, training=Training(**training))


def trainer_of(plan: Plan) -> tuple[Trainer, MechanismSpec]:
    trainer = Trainer(registry.build(plan.model), plan)
    digest = trainer.layout.digest
    return trainer, mechanism(plan, plan.sites[0], noise_multiplier=1.5, trainable_digest=digest)


def update(trainer: Trainer, spec: MechanismSpec, round: int, **observer: Any) -> np.ndarray:
    base = trainer.open_vector
    return trainer.train(base, DATA, spec, SeededNoise(3), site="s0", round=round, **observer)


def head_of(trainer: Trainer) -> np.ndarray:
    sizes = sizes_of(trainer)
    return np.repeat([name.startswith("head.") for name in sizes], list(sizes.values()))


def sizes_of(trainer: Trainer) -> dict[str, int]:
    layout = trainer.layout
    return {n: int(np.prod(s)) for n, s in zip(layout.names, layout.shapes, strict=True)}


@pytest.mark.parametrize("trainable", ["bias", "all"])
def test_a_warm_round_is_the_round_of_a_plan_whose_head_alone_trains(
    make_plan: MakePlan, trainable: str
) -> None:
    """Same stream, clip norm and noise; and zero everywhere else.

    A plan of the head alone keeps its features, so sums may differ in the last digits.
    """
    trainer, spec = trainer_of(plan_of(make_plan, trainable, warm_head=2))
    alone, _ = trainer_of(plan_of(make_plan, "head"))
    head = head_of(trainer)
    for round in (1, 2):
        found = update(trainer, spec, round)
        assert not found[~head].any()
        np.testing.assert_allclose(found[head], update(alone, spec, round), rtol=0, atol=1e-6)


def test_afterwards_everything_moves_as_without_a_warm_head(make_plan: MakePlan) -> None:
    trainer, spec = trainer_of(plan_of(make_plan, warm_head=2))
    plain, _ = trainer_of(plan_of(make_plan))
    base = plain.open_vector
    trainer.train(base, DATA, spec, SeededNoise(3), site="s0", round=1)
    found = trainer.train(base, DATA, spec, SeededNoise(3), site="s0", round=3)
    assert np.count_nonzero(found) == len(found)  # what stood still trains again
    assert found.tobytes() == update(plain, spec, 3).tobytes()


def test_a_training_that_ends_in_a_warm_round_leaves_the_model_trainable(
    make_plan: MakePlan,
) -> None:
    model = registry.build(GLYPHS)
    plan = plan_of(make_plan, warm_head=2)
    trainer = Trainer(model, plan)
    _, spec = trainer_of(plan)
    broken = replace(DATA, train_x=X[:, :, :5])  # no glyph
    with pytest.raises(RuntimeError):
        trainer.train(trainer.open_vector, broken, spec, SeededNoise(0), site="s0", round=1)
    assert all(model.get_parameter(name).requires_grad for name in trainer.layout.names)


def test_live_coordinates_by_hand() -> None:
    sizes = {"body.bias": 2, "head.weight": 3, "tail": 1}
    found = live_coordinates(sizes, 2, 2)
    assert found is not None and found.tolist() == [False, False, True, True, True, False]
    assert live_coordinates(sizes, 2, 3) is None
    assert live_coordinates({"head.weight": 3}, 2, 1) is None
    assert [live_sizes(sizes, 2, round) for round in (2, 3)] == [(3,), (2, 3, 1)]


def attempts_of(path: Path, trainer: Trainer, spec: MechanismSpec) -> tuple[Attempt, ...]:
    """Four rounds on file, as a site keeps them."""
    evidence = Evidence(path, sizes=tuple(sizes_of(trainer).values()))
    for round in (1, 2, 3, 4):
        evidence.begin(job="j", round=round, attempt=1)
        evidence.end(update(trainer, spec, round, observer=evidence), codec="float32")
    return tuple(read_evidence(path).values())


def failed(plan: Plan, trainer: Trainer, attempts: tuple[Attempt, ...]) -> set[str]:
    sites = {"s0": attempts}
    found = [
        *noise_findings("s0", [(1.5, step) for a in attempts for step in a.steps.values()]),
        *deterministic_findings(
            sites,
            learning_rate=plan.rounds.local_learning_rate,
            charged={"s0": {a.key: a.spec for a in attempts}},
            sent={"s0": {a.key for a in attempts}},
        ),
        *moving_findings(plan, sites, trainer.layout),
    ]
    assert {f.outcome for f in judge(found)} <= {"passed", "failed"}
    return {f.test for f in judge(found) if f.outcome == "failed"}


def test_the_audit_passes_a_warm_head_and_finds_one_that_never_ends(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(make_plan, warm_head=2)
    trainer, spec = trainer_of(plan)
    assert failed(plan, trainer, attempts_of(tmp_path / "right", trainer, spec)) == set()
    monkeypatch.setattr(Phases, "of", lambda self, round: self._warm)
    assert failed(plan, trainer, attempts_of(tmp_path / "endless", trainer, spec)) == {LIVE}


def test_the_audit_finds_a_body_that_moves_while_the_head_warms_up(
    make_plan: MakePlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_of(make_plan, warm_head=2)
    trainer, spec = trainer_of(plan)
    monkeypatch.setattr(Phases, "of", lambda self, round: self._all)
    assert failed(plan, trainer, attempts_of(tmp_path / "cold", trainer, spec)) == {LIVE}


def test_an_update_that_moves_what_stands_still_does_not_follow(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    trainer, spec = trainer_of(plan_of(make_plan, warm_head=2))
    evidence = Evidence(tmp_path / "e", sizes=tuple(sizes_of(trainer).values()))
    evidence.begin(job="j", round=1, attempt=1)
    vector = update(trainer, spec, 1, observer=evidence)
    vector[0] = 1e-3  # a body coordinate
    evidence.end(vector, codec="float32")
    (attempt,) = read_evidence(tmp_path / "e").values()
    assert attempt.residual is not None and attempt.residual > 1e-6


def test_what_is_no_image_is_not_varied(make_plan: MakePlan) -> None:
    plan = make_plan(1)
    assert augment_of(plan) is None
    with pytest.raises(InvalidInput, match="are no images"):
        replace(plan, training=Training(augment="flip"))


def test_copies_and_parts_reach_the_step(
    make_plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}
    step = training.private_gradient

    def watch(*args: Any, **options: Any) -> Any:
        seen.update(options)
        return step(*args, **options)

    monkeypatch.setattr(training, "private_gradient", watch)
    plan = plan_of(make_plan, augment="shift", augmentations=3)
    trainer = Trainer(registry.build(plan.model), plan, micro_batch=5)
    _, spec = trainer_of(plan)
    update(trainer, spec, 1)
    assert (seen["augment"].kind, seen["augment"].copies, seen["micro_batch"]) == ("shift", 3, 5)


def test_bf16_changes_the_model_s_arithmetic_and_nothing_of_the_noise(
    make_plan: MakePlan,
) -> None:
    plan = plan_of(make_plan, "all")
    exact, spec = trainer_of(plan)
    rough = Trainer(registry.build(plan.model), plan, precision="bf16")
    quiet = replace(spec, noise_multiplier=0.0)
    right, near = update(exact, quiet, 1), update(rough, quiet, 1)
    assert 1e-6 < np.linalg.norm(near - right) / np.linalg.norm(right) < 0.1

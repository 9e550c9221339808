"""Every kind of model, built tiny: deterministic, followable, clipped as autograd does it."""

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from collegium.core.plan_model import ModelRef
from collegium.models import registry
from collegium.models.adapters import select_trainable
from collegium.models.tasks import task
from collegium.privacy import readiness
from collegium.privacy.clipping import make_clipper

BOUNDS = {"age": (0.0, 100.0), "dose": (-1.0, 1.0)}
CATEGORIES = {"ward": ("a", "b", "c"), "sex": ("f", "m")}
SMALL = {"width": 8.0, "layers": 1.0, "heads": 2.0}
CASES = {
    "mlp": {"name": "tabular:mlp", "options": {"hidden": 6.0}},
    "ft-transformer": {"name": "tabular:ft-transformer", "options": SMALL},
    "linear": {"name": "tabular:linear"},
    "hashed": {"name": "text:hashed", "options": {"buckets": 32.0, "tokens": 7.0}},
    "unet": {
        "name": "segmentation:unet",
        "task": "segmentation",
        "image": (9, 10, 1),
        "options": {"width": 4.0, "depth": 2.0},
    },
    "cifar": {"name": "cifar:resnet20", "image": (16, 16, 3), "options": {"random": 1.0}},
}


def ref(case: str, **changes: Any) -> ModelRef:
    values: dict[str, Any] = {"task": "classification", "classes": ("no", "yes"), **CASES[case]}
    if values["name"].startswith("tabular:"):
        values |= {"bounds": BOUNDS, "categories": CATEGORIES, "missing": "flag"}
    return ModelRef(**(values | changes))


def records(asked: ModelRef, count: int = 4) -> np.ndarray[Any, Any]:
    """Raw records as readers give them, with one missing number and one unknown category."""
    rng = np.random.default_rng(3)
    shape = (count, *registry.input_shape(asked))
    match registry.input_kind(asked):
        case "table":
            x = rng.uniform(0, 1, shape)
            x[:, 2:] = rng.integers(0, 2, x[:, 2:].shape)
            x[0, 0], x[1, 2] = np.nan, -1
        case "image":
            x = rng.integers(0, 256, shape).astype(np.float64)
        case _:
            x = rng.integers(-1, 32, shape).astype(np.float64)
    return x.astype(np.float32)


def stirred(model: torch.nn.Module) -> torch.nn.Module:
    """Move a zero head and zero adapters, so that gradients flow into every layer."""
    torch.manual_seed(5)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if not value.any() or name.startswith("head."):
                value.add_(0.3 * torch.randn_like(value))
    return model


def per_record(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    losses = torch.nn.functional.cross_entropy(logits, y, reduction="none")
    return losses.flatten(1).mean(1) if losses.ndim > 1 else losses


def oracle(
    model: torch.nn.Module, chosen: list[torch.nn.Parameter], x: Any, y: Any, clip: float
) -> torch.Tensor:
    """The clipped sum by plain autograd, one record after the other."""
    total = torch.zeros(sum(p.numel() for p in chosen))
    for i in range(len(x)):
        grads = torch.autograd.grad(
            per_record(model(x[i : i + 1]), y[i : i + 1])[0], chosen, allow_unused=True
        )
        row = torch.cat(
            [
                torch.zeros(p.numel()) if g is None else g.reshape(-1)
                for g, p in zip(grads, chosen, strict=True)
            ]
        )
        total += row * min(1.0, clip / float(row.norm()))
    return total


@pytest.mark.parametrize(
    ("case", "trainable"),
    [
        *((case, "all") for case in CASES),
        ("mlp", "last:1"),
        ("ft-transformer", "norm"),
        ("ft-transformer", "lora:2"),
        ("cifar", "lora:2"),
        ("unet", "last:1"),
    ],
)
def test_clipped_sums_are_those_of_plain_autograd(case: str, trainable: str) -> None:
    if trainable.startswith("lora"):
        pytest.importorskip("peft")
    torch.set_num_threads(1)
    asked = ref(case, trainable=trainable)
    model = stirred(registry.build(asked)).train()
    chosen = select_trainable(model, trainable)
    assert registry.trainable_size(asked) == sum(p.numel() for p in chosen.values())
    x = torch.nan_to_num(torch.from_numpy(records(asked)))
    y = torch.tensor([0, 1, 1, 0])
    if asked.task == "segmentation":
        y = torch.randint(2, (4, 9, 10))
    assert readiness.check(model, list(chosen), example=x) == []
    exact = oracle(model, list(chosen.values()), x, y, clip=0.05)
    found = make_clipper(model, list(chosen.values()), per_record).clipped_sum(x, y, 0.05)
    assert float(exact.norm()) > 0.01
    np.testing.assert_allclose(found, exact.numpy(), atol=2e-5 * float(exact.norm()))


@pytest.mark.parametrize("case", list(CASES))
def test_a_built_model_answers_zero_alike_every_time(case: str) -> None:
    asked = ref(case)
    first, second = registry.build(asked), registry.build(asked)
    state = second.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.state_dict().items())
    assert not first.training and {"preprocess", "head", "output"} <= set(first._modules)
    x = torch.from_numpy(records(asked))
    with torch.no_grad():
        assert first(x).shape[:2] == (4, 2)
        assert not first(x).any()
        assert torch.equal(stirred(first)(x), first.train()(x))


@pytest.mark.parametrize(
    ("task", "target", "expected"),
    [("regression", (0.0, 9.0), 1), ("survival", (0.0, 30.0, 60.0), 4), ("multilabel", (), 2)],
)
@pytest.mark.parametrize("case", ["linear", "mlp", "ft-transformer", "cifar", "hashed"])
def test_outputs_follow_the_task(
    case: str, task: str, target: tuple[float, ...], expected: int
) -> None:
    classes = ("a", "b") if task == "multilabel" else ()
    asked = ref(case, task=task, target=target, classes=classes)
    model = registry.build(asked)
    with torch.no_grad():
        assert model(torch.from_numpy(records(asked))).shape == (4, expected)
    assert registry.outputs(asked) == expected
    assert registry.total_parameters(asked) >= registry.trainable_size(asked) > 0


def test_missing_numbers_and_unknown_categories_reach_the_tokens() -> None:
    model = stirred(registry.build(ref("ft-transformer")))
    x = torch.from_numpy(records(ref("ft-transformer"))[2:3]).repeat(3, 1)
    x[1, 0], x[2, 3] = float("nan"), -1
    with torch.no_grad():
        answers = model(x)
    assert answers.isfinite().all() and len(torch.unique(answers[:, 0])) == 3


def test_a_feature_norm_scales_what_the_head_reads() -> None:
    asked = ref("cifar", options={"random": 1.0, "feature_norm": 1.5})
    model: Any = registry.build(asked)
    with torch.no_grad():
        norms = model.features(torch.from_numpy(records(asked))).norm(dim=1)
    assert norms.tolist() == pytest.approx([1.5] * 4, rel=1e-4)


def test_building_leaves_the_shared_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        registry.build(ref("mlp"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_missing_number_is_trained_on_where_the_plan_says_what_it_means() -> None:
    plain = ModelRef(
        name="tabular:linear",
        task="classification",
        classes=("a", "b"),
        trainable="all",
        bounds={"x": (0.0, 1.0), "z": (0.0, 1.0)},
        missing="flag",
    )
    x = torch.tensor([[float("nan"), 0.25]])
    y = torch.tensor([1])
    for missing, trains in (("flag", True), ("refuse", False)):
        model = registry.build(replace(plain, missing=missing))
        trainable = list(select_trainable(model, "all").values())
        clipper = make_clipper(model.train(), trainable, task(plain).loss)
        assert bool(np.abs(clipper.clipped_sum(x, y, 1.0)).sum() > 0) is trains

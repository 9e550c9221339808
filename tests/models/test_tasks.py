"""Tasks by name: what a model must answer, and tasks of other packages."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from collegium.core.errors import InvalidInput, NotAvailable
from collegium.core.plan import ModelRef
from collegium.models.tasks import outputs_of, task

CLASSES = ("a", "b", "c")
REFS = {
    "classification": {"classes": CLASSES},
    "multilabel": {"classes": CLASSES},
    "regression": {"target": (0.0, 10.0)},
    "survival": {"target": (0.0, 90.0, 365.0)},
    "segmentation": {"classes": CLASSES},
}
PACKAGE = """
class Ours:
    def outputs(self, ref):
        return 7

    def loss(self, outputs, labels):
        return outputs.sum(dim=1) * labels

    def metrics(self, outputs, labels):
        return {"accuracy": 0.25, "auc": float("nan"), "first_record": outputs[0, 0]}


ours = Ours()
half = object()
"""


def ref(name: str) -> ModelRef:
    return ModelRef(name="plugin:any", task=name, **REFS.get(name, {}))  # type: ignore[arg-type]


def labels(name: str, count: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(3)
    match name:
        case "classification":
            return torch.randint(3, (count,), generator=draw)
        case "multilabel":
            return torch.randint(2, (count, 3), generator=draw).float()
        case "regression":
            return torch.rand(count, generator=draw) * 12 - 1
        case "survival":
            times = torch.rand(count, generator=draw) * 500
            return torch.stack([times, torch.randint(2, (count,), generator=draw).float()], dim=1)
        case _:
            masks = torch.randint(3, (count, 4, 5), generator=draw)
            return masks.where(torch.rand(masks.shape, generator=draw) > 0.2, 255)


def outputs(name: str, count: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(4)
    shape = (count, outputs_of(ref(name)), *((4, 5) if name == "segmentation" else ()))
    return torch.randn(shape, generator=draw)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("classification", 3),
        ("multilabel", 3),
        ("regression", 1),
        ("survival", 4),
        ("segmentation", 3),
    ],
)
def test_a_model_has_as_many_outputs_as_its_task_needs(name: str, count: int) -> None:
    assert outputs_of(ref(name)) == task(ref(name)).outputs == count
    assert task(ref(name)).name == name


@pytest.mark.parametrize("name", REFS)
def test_no_record_enters_the_loss_of_another(name: str) -> None:
    """The losses of a batch are those of its records alone, and so are the gradients."""
    made, y = task(ref(name)), labels(name, 6)
    x = outputs(name, 6).requires_grad_()
    together = made.loss(x, y)
    assert together.shape == (6,)
    for i in range(6):
        torch.testing.assert_close(together[i], made.loss(x[i : i + 1], y[i : i + 1])[0])
        gradient = torch.autograd.grad(together[i], x, retain_graph=True)[0]
        gradient[i] = 0
        assert not gradient.any()


@pytest.mark.parametrize("name", REFS)
def test_the_loss_takes_each_records_gradient_at_once(name: str) -> None:
    """``vmap``, which the audit uses, allows no branch that looks at values."""
    made, x, y = task(ref(name)), outputs(name, 5), labels(name, 5)

    def one(record: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return made.loss(record[None], label[None]).sum()

    found = torch.func.vmap(torch.func.grad(one))(x, y)
    whole = x.clone().requires_grad_()
    torch.testing.assert_close(found, torch.autograd.grad(made.loss(whole, y).sum(), whole)[0])


@pytest.mark.parametrize("name", REFS)
def test_metrics_are_plain_finite_numbers_and_none_without_records(name: str) -> None:
    made = task(ref(name))
    found = made.metrics(outputs(name, 40).numpy(), labels(name, 40).numpy())
    assert found
    assert all(type(value) is float and np.isfinite(value) for value in found.values())
    assert made.metrics(outputs(name, 40).numpy()[:0], labels(name, 40).numpy()[:0]) == {}


@pytest.mark.parametrize("name", REFS)
def test_one_record_of_any_task_has_metrics_or_none_but_no_error(name: str) -> None:
    made = task(ref(name))
    found = made.metrics(outputs(name, 1).numpy(), labels(name, 1).numpy())
    assert all(np.isfinite(value) for value in found.values())


@pytest.mark.parametrize("name", ["classify", "", "Survival"])
def test_an_unknown_task_is_named(name: str) -> None:
    for ask in (task, outputs_of):
        with pytest.raises(InvalidInput, match=f"no task '{name}'"):
            ask(ref(name))


def test_a_task_without_its_public_target_is_refused() -> None:
    for name in ("regression", "survival"):
        with pytest.raises(InvalidInput, match="target"):
            task(ModelRef(name="plugin:any", task=name))
    for cuts in ((0.0, 0.0), (5.0, 1.0), (-1.0, 1.0)):
        with pytest.raises(InvalidInput, match="public times"):
            task(ModelRef(name="plugin:any", task="survival", target=cuts))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An installed package that offers two tasks, one of them half made."""
    name = "collegium_test_task"
    (tmp_path / f"{name}.py").write_text(PACKAGE)
    info = tmp_path / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[collegium.tasks]\nours = {name}:ours\nhalf = {name}:half\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


@pytest.mark.usefixtures("package")
def test_another_package_brings_its_own_task() -> None:
    made = task(ref("plugin:ours"))
    assert (made.name, made.outputs, made.right) == ("plugin:ours", 7, None)
    assert outputs_of(ref("plugin:ours")) == 7
    assert made.loss(torch.ones(2, 7), torch.tensor([1, 2])).tolist() == [7.0, 14.0]
    assert made.metrics(np.zeros((1, 7)), np.zeros(1)) == {"accuracy": 0.25}


@pytest.mark.usefixtures("package")
def test_a_plug_in_that_is_no_task_or_not_there_is_not_available() -> None:
    with pytest.raises(NotAvailable, match="lacks loss and metrics and outputs"):
        task(ref("plugin:half"))
    with pytest.raises(NotAvailable, match="not installed"):
        outputs_of(ref("plugin:nobodys"))

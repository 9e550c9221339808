"""The registry: cards, sizes and pinned weights of the open models."""

import json
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
import torch

from collegium.core.digest import sha256_hex
from collegium.core.errors import InvalidInput, Refused
from collegium.core.plan import ModelRef
from collegium.data.glyphs import glyph_set
from collegium.models import registry
from collegium.models.evaluate import evaluate, logits
from collegium.models.registry import build, card, open_model, total_parameters, trainable_size
from collegium.models.tasks import task

GLYPH = "collegium:glyph-cnn"
DIGITS = tuple(str(digit) for digit in range(10))
BOUNDS = {"a": (0.0, 10.0), "b": (-1.0, 1.0), "c": (5.0, 6.0)}


def ref(**changes: object) -> ModelRef:
    values = {"name": GLYPH, "task": "classification", "classes": DIGITS} | changes
    return ModelRef(**values)  # pyright: ignore[reportArgumentType]


def linear(**changes: object) -> ModelRef:
    return ref(name="tabular:linear", classes=("no", "yes"), bounds=BOUNDS, **changes)


def asset() -> dict[str, object]:
    return json.loads((files("collegium.models") / "assets" / "glyph-cnn.json").read_text())


def test_the_card_tells_the_truth_about_the_asset() -> None:
    content = (files("collegium.models") / "assets" / "glyph-cnn.safetensors").read_bytes()
    model = open_model(ref())
    biases = [p for n, p in model.named_parameters() if n.endswith("bias") and "head" not in n]
    assert len(content) < 500_000
    assert card(GLYPH).weights == sha256_hex(content)
    assert card(GLYPH).parameters == sum(p.numel() for p in model.parameters())
    assert card(GLYPH).body_biases == sum(b.numel() for b in biases)
    assert card(GLYPH).head_inputs == model.get_submodule("head").in_features
    assert card(GLYPH).classes == DIGITS
    assert "synthetic" in card(GLYPH).trained_on


def test_the_card_of_a_linear_model_is_decided_by_the_bounds() -> None:
    assert card("tabular:linear").weights is None
    assert trainable_size(linear()) == (3 + 1) * 2
    assert total_parameters(linear()) == 8
    assert trainable_size(linear(trainable="all")) == 8
    assert trainable_size(linear(trainable="bias")) == 8


@pytest.mark.parametrize("trainable", ["head", "bias", "all"])
@pytest.mark.parametrize("classes", [DIGITS, ("even", "odd")])
def test_trainable_size_agrees_with_the_model(trainable: str, classes: tuple[str, ...]) -> None:
    from collegium.models.adapters import select_trainable

    model_ref = ref(trainable=trainable, classes=classes)
    model = build(model_ref)
    chosen = select_trainable(model, trainable)
    assert trainable_size(model_ref) == sum(p.numel() for p in chosen.values())
    assert total_parameters(model_ref) == sum(p.numel() for p in model.parameters())


def test_planning_imports_no_torch() -> None:
    code = (
        "import sys; from collegium.models import registry as r; from collegium.core.plan import "
        "ModelRef; r.trainable_size(ModelRef(name='collegium:glyph-cnn', task='classification', "
        "classes=('0', '1'))); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_model_names_its_neighbours() -> None:
    with pytest.raises(InvalidInput, match="collegium:glyph-cnn"):
        card("collegium:glyf-cnn")
    with pytest.raises(InvalidInput, match="did you mean"):
        card("nonsense")


@pytest.mark.parametrize("trainable", ["norm", "last:2", "lora:2"])
def test_parts_of_the_body_count_as_the_model_does(trainable: str) -> None:
    from collegium.models.adapters import select_trainable

    if trainable.startswith("lora"):
        pytest.importorskip("peft")
    model = build(ref(trainable=trainable))
    chosen = select_trainable(model, trainable)
    assert trainable_size(ref(trainable=trainable)) == sum(p.numel() for p in chosen.values())
    assert len(chosen) > 2  # more than the head


def test_an_unknown_trainable_is_refused() -> None:
    with pytest.raises(InvalidInput):
        trainable_size(ref(trainable="heads"))


def test_a_built_model_has_a_zero_head_of_the_plans_classes() -> None:
    x = glyph_set(5, seed=0).x
    out = logits(build(ref(classes=("even", "odd"))), x)
    assert out.shape == (5, 2)
    assert not out.any()


def test_other_weights_than_the_pinned_ones_are_refused() -> None:
    with pytest.raises(Refused, match="sha256:0000"):
        build(ref(weights="sha256:" + "0" * 64))
    assert build(ref(weights=card(GLYPH).weights))


def test_a_linear_model_without_bounds_is_refused() -> None:
    with pytest.raises(InvalidInput, match="bounds"):
        build(ref(name="tabular:linear"))


def test_the_open_linear_model_starts_at_zero() -> None:
    x = np.array([[5.0, 0.0, 5.5]], dtype=np.float32)
    assert logits(open_model(linear()), x).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize("source", ["pen", "held-out-fonts"])
def test_the_open_model_reads_glyphs_that_it_never_saw(source: str) -> None:
    figures = asset()["held_out_accuracy"]
    assert isinstance(figures, dict)
    public = glyph_set(1000, seed=424_242, source=source)  # pyright: ignore[reportArgumentType]
    assert public.y is not None
    found = evaluate(open_model(ref()), task(ref()), public.x, public.y)
    assert found["accuracy"] > figures[source] - 0.03  # five binomial standard errors


def test_the_same_bytes_give_the_same_model() -> None:
    x = glyph_set(8, seed=1).x
    first, second = logits(open_model(ref()), x), logits(open_model(ref()), x)
    assert first.tobytes() == second.tobytes()
    assert not isinstance(open_model(ref()).get_submodule("head"), torch.nn.Identity)


def test_every_listed_name_has_a_card() -> None:
    assert [card(name).name for name in registry.names()] == list(registry.names())

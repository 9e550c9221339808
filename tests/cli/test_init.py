"""``collegium init`` writes two files that the other verbs accept, and overwrites nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from collegium.cli.main import run
from collegium.cli.recipes import RECIPES, recipe_for
from collegium.core.plan import Plan
from collegium.core.site_file import SiteFile
from collegium.models.registry import card
from collegium.server import planner

ROOT = Path(__file__).resolve().parents[2]


def test_both_files_are_good_to_start_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "new" / "study"
    assert run(["init", str(folder)]) == 0
    assert "collegium plan explain" in capsys.readouterr().out
    plan = planner.check(folder / "plan.toml")
    site = SiteFile.load(folder / "site.toml")
    assert site.site.name == plan.sites[0].name
    assert site.policy.budget.epsilon >= plan.privacy.epsilon


def test_the_plan_is_the_one_of_the_demo() -> None:
    template = Plan.load(ROOT / "cli" / "templates" / "plan.toml")
    assert template == Plan.load(ROOT / "simulations" / "plans" / "digits.toml")


@pytest.mark.parametrize("name", ["plan.toml", "site.toml"])
def test_nothing_is_overwritten_and_nothing_half_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text("mine", encoding="utf-8")
    assert run(["init", str(tmp_path)]) == 73
    assert name in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text(encoding="utf-8") == "mine"


def test_a_file_in_the_place_of_the_folder_is_73(tmp_path: Path) -> None:
    (tmp_path / "study").write_text("mine", encoding="utf-8")
    assert run(["init", str(tmp_path / "study")]) == 73


def test_json_names_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", str(tmp_path / "s"), "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"plan", "site"}


MODELS = [
    ("tabular:linear", "head", "classification"),
    ("collegium:glyph-cnn", "bias", "classification"),
    ("torchvision:resnet18", "all", "multilabel"),
    ("torchvision:resnet18", "lora:4", "classification"),
    ("tabular:linear", "head", "regression"),
    ("tabular:linear", "head", "survival"),
    ("text:hashed", "head", "classification"),
]


@pytest.mark.parametrize(("model", "trainable", "task"), MODELS)
def test_a_plan_of_a_model_holds_its_measured_recipe(
    tmp_path: Path, model: str, trainable: str, task: str
) -> None:
    words = ["--model", model, "--trainable", trainable, "--task", task]
    assert run(["init", str(tmp_path / "s"), *words]) == 0
    plan = Plan.load(tmp_path / "s" / "plan.toml")  # no problem of structure, type or range
    assert (plan.model.name, plan.model.trainable, plan.model.task) == (model, trainable, task)
    family = model.partition(":")[0]
    kind: Any = {"tabular": "table", "text": "text"}.get(family, "image")
    recipe = recipe_for(kind, trainable)
    found = (
        plan.privacy.epsilon, plan.rounds.count, plan.privacy.sampling_rate,
        plan.privacy.clip_norm, plan.strategy.server_learning_rate, plan.strategy.iterate_average,
    )  # fmt: skip
    assert found == (
        recipe.epsilon, recipe.rounds, recipe.sampling_rate, recipe.clip_norm,
        recipe.learning_rate, recipe.iterate_average,
    )  # fmt: skip
    text = (tmp_path / "s" / "plan.toml").read_text("utf-8")
    assert ("Measured on" in text) == bool(recipe.measured)
    assert ("was measured: these are" in text) != bool(recipe.measured)
    if card(model).pinned and card(model).weights is None:
        assert '# weights = "sha256:..."' in text  # whose, nobody but the consortium knows
    elif task == "classification":
        planner.check(tmp_path / "s" / "plan.toml")  # its names are known here, too
    site = SiteFile.load(tmp_path / "s" / "site.toml")
    assert site.policy.models == (model,)
    assert site.data.reader == {"tabular": "csv", "text": "text"}.get(family, "images")


@pytest.mark.parametrize("model", ["segmentation:unet", "cifar:resnet20", "tabular:mlp"])
def test_a_model_s_own_task_is_the_default(tmp_path: Path, model: str) -> None:
    assert run(["init", str(tmp_path / "s"), "--model", model]) == 0
    planner.check(tmp_path / "s" / "plan.toml")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--trainable", "head"], 64),
        (["--model", "tabular:liner"], 65),
        (["--model", "tabular:linear", "--task", "clasification"], 65),
    ],
)
def test_what_is_unknown_writes_nothing(tmp_path: Path, words: list[str], code: int) -> None:
    assert run(["init", str(tmp_path / "s"), *words]) == code
    assert not (tmp_path / "s").exists()


def test_every_default_stands_in_the_page_that_measured_it() -> None:
    """docs/recipes.md names each recipe's numbers; a change of one is a change of both."""
    page = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    for (kind, part), recipe in RECIPES.items():
        row = (
            f"| {kind} | {part} | {recipe.epsilon:g} | {recipe.rounds} | {recipe.sampling_rate:g} "
            f"| {recipe.clip_norm:g} | {recipe.learning_rate:g} | {recipe.iterate_average:g} |"
        )
        assert row in page and recipe.measured in page

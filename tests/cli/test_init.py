"""``collegium init`` writes two files that the other verbs accept, and overwrites nothing."""

import json
from pathlib import Path

import pytest

from collegium.cli.main import run
from collegium.core.plan import Plan
from collegium.core.site_file import SiteFile
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

"""The examples: plans and site files hold, the notebook runs as it stands, heart gives figures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from collegium.core.plan import Plan
from collegium.core.site_file import SiteFile
from collegium.server.planner import check

EXAMPLES = Path(__file__).parent.parent / "examples"
PLANS = sorted(EXAMPLES.glob("*/plan*.toml"))
DATA = Path(os.environ.get("COLLEGIUM_DATA") or EXAMPLES.parent.parent / "shared" / "data")
NOTEBOOK = Path(__file__).parent.parent / "examples" / "first_federation.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_still_says_what_it_shows(tmp_path: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    script = tmp_path / "notebook.py"
    script.write_text("\n\n".join("".join(cell["source"]) for cell in code))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "verified: True" in done.stdout
    assert "custom: True" in done.stdout
    # The plan's errors are quoted in the notebook, word for word.
    quoted = "".join(code[1]["outputs"][0]["text"])
    assert "2 problems in this plan" in quoted and quoted in done.stdout


@pytest.mark.parametrize("path", PLANS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_example_is_a_valid_plan_with_its_files(path: Path) -> None:
    plan = check(path)
    assert plan.privacy.enabled == ("dp" in path.stem)
    assert (path.parent / "README.md").is_file()
    assert plan.simulation is not None and plan.simulation.files is not None
    files = Path(plan.simulation.files)
    wanted = [files / f"{site.name}.toml" for site in plan.sites] if files.is_dir() else [files]
    for file in wanted:
        words = SiteFile.load(file)
        assert words.data.path.startswith("$COLLEGIUM_DATA/")
        assert words.site.mode == "simulation"


def test_plans_with_and_without_privacy_are_of_the_same_study() -> None:
    for folder in {path.parent for path in PLANS}:
        plain, private = (Plan.load(folder / f"{name}.toml") for name in ("plan", "plan-dp"))
        assert (plain.model, plain.sites) == (private.model, private.sites)


@pytest.mark.slow
@pytest.mark.skipif(not DATA.is_dir(), reason="the data sets are not here")
def test_heart_beats_each_centres_most_frequent_class(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "collegium", "simulate", str(EXAMPLES / "heart/plan.toml")]
    done = subprocess.run(
        [*words, "--out", str(tmp_path / "run"), "--json"],
        capture_output=True, text=True, check=False,
        env=os.environ | {"COLLEGIUM_DATA": str(DATA)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["majority"]["macro_accuracy"] == pytest.approx(0.721, abs=5e-4)
    assert found["global"]["metrics"]["macro_accuracy"] >= 0.82
    assert set(found["global"]["by_site"]) == {"cleveland", "hungarian", "switzerland", "va"}
    assert found["statistics"]["epsilon_alone"] is None

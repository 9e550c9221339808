"""The notebook under examples/ runs as it stands, in a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

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

"""docs/plan-reference.md is what the program says today."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_reference_is_current() -> None:
    render = runpy.run_path(str(ROOT / "scripts" / "write_docs.py"))["render"]
    written = (ROOT / "docs" / "plan-reference.md").read_text(encoding="utf-8")
    assert written == render(), "python scripts/write_docs.py"

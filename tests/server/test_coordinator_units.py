"""The shipped systemd units: accepted by systemd, and closed as far as they can be."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "deploy" / "coordinator"
UNITS = ("collegium-coordinator.service", "collegium-run@.service")

pytestmark = [
    pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here"),
    pytest.mark.skipif(not FOLDER.is_dir(), reason="not a checkout"),
]


@pytest.mark.parametrize("name", UNITS)
def test_systemd_accepts_the_unit(name: str, tmp_path: Path) -> None:
    program = tmp_path / "collegium"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = (FOLDER / name).read_text().replace("/opt/collegium/bin/collegium", str(program))
    named = name.replace("@", "@one")
    (tmp_path / named).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / named)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if named in line]
    assert not complaints, done.stderr


@pytest.mark.parametrize("name", UNITS)
def test_the_unit_is_closed(name: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(FOLDER / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    found = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert found, done.stderr
    assert float(found.group(1)) <= 2.5

"""docs/consortium.md: its commands run as they stand, and a site takes the kit that they make."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from collegium.client.kit import load_kit
from collegium.core.site_file import SiteFile

PAGE = Path(__file__).resolve().parents[2] / "docs" / "consortium.md"
WORDS = {"asset": "cardiology", "path": "r.csv", "label": "y", "anchor": "/mnt/other/anchor"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def filled_in(line: str) -> str:
    """A line of site.toml once the administrator has done what the page says."""
    key = line.partition(" ")[0]
    if key in WORDS and "FILL IN" in line:
        return f'{key} = "{WORDS[key]}"'
    return line.replace("# ", "", 1) if line.startswith('  # "ed25519:') else line


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the page is written for bash")
def test_the_page_runs_as_it_stands(tmp_path: Path) -> None:
    script = "\n".join(
        [
            "set -e",
            f'collegium() {{ "{sys.executable}" -m collegium "$@"; }}',
            "collegium init study",
            f"cat >> study/plan.toml <<'TOML'\n{blocks('toml')[0]}TOML",
            *blocks("bash"),
        ]
    )
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "roster  2 of 2 signatures are missing" in done.stdout
    assert "roster  signed" in done.stdout
    kit = tmp_path / "federation" / "kits" / "north"
    (tmp_path / "north-keys").rename(kit / "keys")
    site_toml = kit / "site.toml"
    lines = site_toml.read_text(encoding="utf-8").splitlines()
    site_toml.write_text("\n".join(filled_in(line) for line in lines), encoding="utf-8")
    found = load_kit(SiteFile.load(site_toml))
    assert [member.name for member in found.roster.members] == ["alice", "bob"]
    assert len(found.agreement.signers) == 2

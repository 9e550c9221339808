"""What ``provision --out`` may name: a folder, told in words where none can be made."""

from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import InvalidInput, OutputExists
from collegium.server.provision import provision_lab


@pytest.mark.parametrize("name", ["afile", "afile/out", "afile/far/out"])
def test_an_out_below_a_file_is_no_folder(tmp_path: Path, make_plan: Any, name: str) -> None:
    (tmp_path / "afile").write_text("")
    with pytest.raises(OutputExists, match="is a file"):
        provision_lab(make_plan(sites=2), tmp_path / name)


def test_a_name_that_no_folder_can_have(tmp_path: Path, make_plan: Any) -> None:
    with pytest.raises(InvalidInput, match="no folder can be made"):
        provision_lab(make_plan(sites=2), tmp_path / ("x" * 300))
    with pytest.raises(InvalidInput, match="no folder can be made"):
        provision_lab(make_plan(sites=2), tmp_path / "new" / ("x" * 300))
    assert list(tmp_path.iterdir()) == []

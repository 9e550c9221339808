"""One run per folder: made once, held by one process, resumed as the same run alone."""

from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import InvalidInput, OutputExists
from collegium.server.run_folder import is_finished, load_stage, save_stage, workspace


def hold(folder: Path, plan: Any, identity: str = "a", *, resume: bool = False) -> None:
    with workspace(folder, plan, identity=identity, resume=resume) as found:
        assert (found / "plan.toml").is_file()


def test_a_folder_is_used_once_and_resumed_as_the_same_run(tmp_path: Path, make_plan: Any) -> None:
    folder, plan = tmp_path / "run", make_plan()
    hold(folder, plan)
    with pytest.raises(OutputExists, match="not empty"):
        hold(folder, plan)
    hold(folder, plan, resume=True)
    with pytest.raises(OutputExists, match="another plan"):
        hold(folder, plan, "b", resume=True)


def test_a_folder_that_is_in_use_is_refused(tmp_path: Path, make_plan: Any) -> None:
    plan = make_plan()
    with (
        workspace(tmp_path / "run", plan, identity="a", resume=False),
        pytest.raises(OutputExists, match="another process"),
    ):
        hold(tmp_path / "run", plan, resume=True)
    hold(tmp_path / "run", plan, resume=True)


def test_a_file_is_no_folder(tmp_path: Path, make_plan: Any) -> None:
    (tmp_path / "run").write_text("")
    for name in ("run", "run/below", "run/far/below"):
        with pytest.raises(OutputExists, match="is a file"):
            hold(tmp_path / name, make_plan(), resume=True)


def test_a_name_that_no_folder_can_have(tmp_path: Path, make_plan: Any) -> None:
    for name in ("x" * 300, f"new/{'x' * 300}"):
        with pytest.raises(InvalidInput, match="no folder can be made"):
            hold(tmp_path / name, make_plan())


def test_stages_are_kept(tmp_path: Path) -> None:
    assert load_stage(tmp_path, "federation") is None
    save_stage(tmp_path, "federation", {"job": "j"})
    assert load_stage(tmp_path, "federation") == {"job": "j"}
    assert not is_finished(tmp_path)
    (tmp_path / "result.json").write_text("{}")
    assert is_finished(tmp_path)

"""log.jsonl: one JSON object a line, only while the context lasts, only this package."""

import json
import logging
from pathlib import Path

import pytest

from collegium.core.logs import logging_to

OURS = logging.getLogger("collegium.core.tests")


def lines(folder: Path) -> list[dict[str, object]]:
    """The lines of the log."""
    return [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]


def test_lines_levels_and_tracebacks(tmp_path: Path) -> None:
    with logging_to(tmp_path):
        OURS.debug("not shown")
        OURS.info("one\ntwo %s", "ü")
        logging.getLogger("another.package").warning("not ours")
        try:
            raise ValueError("boom")
        except ValueError:
            OURS.exception("failed")
    OURS.info("afterwards")
    first, second = lines(tmp_path)
    assert (first["level"], first["message"]) == ("info", "one\ntwo ü")
    assert "ValueError: boom" in str(second["traceback"])


def test_appends_and_restores(tmp_path: Path) -> None:
    root = logging.getLogger("collegium")
    before = (root.level, list(root.handlers), root.propagate)
    for _ in range(2):
        with logging_to(tmp_path):
            OURS.info("shown")
    assert [line["level"] for line in lines(tmp_path)] == ["info", "info"]
    assert (root.level, list(root.handlers), root.propagate) == before


def test_restored_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), logging_to(tmp_path):
        raise RuntimeError
    OURS.warning("afterwards")
    assert lines(tmp_path) == []

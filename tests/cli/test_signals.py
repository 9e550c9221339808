"""SIGTERM ends a run as Ctrl-C does, and means what it meant before afterwards."""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from collegium.cli.main import run
from collegium.cli.signals import sigterm_interrupts


def test_sigterm_is_ctrl_c_inside_and_itself_again_outside() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), sigterm_interrupts():
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_nothing_changes() -> None:
    found: list[Any] = []

    def look() -> None:
        with sigterm_interrupts():
            found.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [before]


def test_a_federation_of_processes_that_is_told_to_end_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told_to_end(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr("collegium.simulations.up.up", told_to_end)
    monkeypatch.chdir(tmp_path)
    assert run(["init", "mine"]) == 0
    # a second handler, so that a fault here fails the test and does not end all of them
    before = signal.signal(signal.SIGTERM, lambda *_: pytest.fail("SIGTERM was not an interrupt"))
    try:
        assert run(["up", "mine/plan.toml", "--out", "run"]) == 75
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "up mine/plan.toml --out run --resume" in capsys.readouterr().err

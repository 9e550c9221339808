"""Verify a bundle as a device would: in a fresh process without torch and without Collegium."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from numpy.typing import NDArray

from ..core.signing import save_public
from .single_file import device_script

log = logging.getLogger(__name__)

BLOCKED = ("torch", "onnx", "onnxscript", "collegium", "flwr", "sklearn", "pandas")
LIMIT_S = 120.0


def verify_apart(
    bundle: Path,
    trusted: Ed25519PublicKey,
    x: NDArray[np.generic],
    expected: Sequence[str],
    *,
    simulated: bool,
) -> str:
    """Run ``device.py predict`` on raw records ``x`` (n, ...), which must get these labels.

    Returns '' when the device verified the bundle and answered so, else what went wrong.
    """
    with tempfile.TemporaryDirectory() as folder:
        public, records = Path(folder) / "trusted.pub", Path(folder) / "x.npy"
        save_public(trusted, public)
        np.save(records, x)
        words = ["predict", str(bundle.absolute()), str(records), "--key", str(public), "--json"]
        if simulated:
            words.append("--allow-simulated")
        try:
            done = run_device(words)
        except subprocess.TimeoutExpired:
            return f"the device process did not end within {LIMIT_S:.0f} s"
    if done.returncode != 0:
        log.error("the device refused the bundle: %s %s", done.stdout, done.stderr)
        return f"the device process ended with {done.returncode}: {_reason(done.stdout)}"
    if json.loads(done.stdout)["labels"] != list(expected):
        return "the device process answered differently"
    return ""


def run_device(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run ``device.py`` with these arguments where an import of ``BLOCKED`` fails."""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "device.py"
        script.write_text(device_script(), encoding="utf-8")
        program = (
            "import runpy, sys\n"
            f"sys.modules.update(dict.fromkeys({BLOCKED!r}))\n"  # None: importing it is an error
            f"sys.argv = {[str(script), *words]!r}\n"
            f"runpy.run_path({str(script)!r}, run_name='__main__')\n"
        )
        return subprocess.run(
            [sys.executable, "-I", "-c", program],
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=LIMIT_S,
            check=False,
        )


def _reason(stdout: str) -> str:
    try:
        return str(json.loads(stdout)["reason"])
    except (ValueError, KeyError, TypeError):
        return "no answer"

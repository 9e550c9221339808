"""A full disk and a failing fsync at every single call: refuse, lose nothing.

Linux with a C compiler; the faults come from a small LD_PRELOAD library built on the spot.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger_books import SPEC, attempt, grow, open_ledger

from collegium.core.errors import CollegiumError, Interrupted, Refused
from collegium.core.signing import generate_key
from collegium.privacy.accountant import epsilon_of

HERE = Path(__file__).resolve().parent
KINDS = {"fsync fails (EIO)": 1, "disk full (ENOSPC)": 2}
MOST_CALLS = 400


@dataclass(slots=True)
class Seen:
    """What happened at each failing call; ``wrong`` must stay empty."""

    faults: int = 0
    refused: int = 0
    absorbed: int = 0
    acknowledged: int = 0
    wrong: list[str] = field(default_factory=list[str])


def run(rounds: int, every: int = 1) -> dict[str, Any] | None:
    """Fail every ``every``-th call, once and for good; None where no library can be built."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "faults.so"
        words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library)]
        subprocess.run([*words, str(HERE / "ledger_faults.c"), "-ldl"], check=True)
        done = subprocess.run(
            [sys.executable, __file__, str(rounds), str(every)],
            env=os.environ | {"LD_PRELOAD": str(library)},
            capture_output=True,
            text=True,
            check=True,
        )
    return json.loads(done.stdout)


def _preloaded(rounds: int, every: int) -> dict[str, Any]:
    """Run with the library in this process: each fault strikes a forked writer."""
    for count in range(1, rounds + 2):
        epsilon_of([(SPEC, count)], SPEC.delta)
    found: dict[str, Any] = {}
    for name, kind in KINDS.items():
        for lasting in (False, True):
            seen = Seen()
            nth = 1
            while nth < MOST_CALLS and _strike(kind, nth, lasting, rounds, seen):
                nth += every
            found[f"{name}, {'for good' if lasting else 'once'}"] = asdict(seen)
    return found


def _strike(kind: int, nth: int, lasting: bool, rounds: int, seen: Seen) -> bool:
    """Let the ``nth`` call of a fresh writer fail; return False when there was no such call."""
    folder = Path(tempfile.mkdtemp(prefix="faults"))
    try:
        key = generate_key()
        ledger = open_ledger(folder, key)
        grow(ledger, [1])
        ledger.close()
        told = _written(folder, key, rounds, (kind, nth, lasting))
        if not told["fired"]:
            return False
        seen.faults += 1
        seen.refused += told["refused"]
        seen.absorbed += not told["refused"]  # a call that nothing acknowledged depends on
        seen.acknowledged += len(told["acked"])
        seen.wrong += told["wrong"]
        ledger = open_ledger(folder, key)
        seen.wrong += ["an entry was lost" for head in told["acked"] if not ledger.knows(head)]
        if ledger.epsilon() < epsilon_of([(SPEC, told["reserves"])], SPEC.delta):
            seen.wrong.append("under-counted")
        grow(ledger, [rounds + 5])
        ledger.close()
    finally:
        shutil.rmtree(folder)
    return True


def _written(
    folder: Path, key: Ed25519PrivateKey, rounds: int, fault: tuple[int, int, bool]
) -> dict[str, Any]:
    """Append in a forked process under the fault; return what it acknowledged and noticed."""
    inbox, outbox = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(inbox)
            told = _append(folder, key, rounds, fault)
            os.write(outbox, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(outbox)
    with os.fdopen(inbox, "rb") as stream:
        raw = stream.read()
    os.waitpid(child, 0)
    return json.loads(raw)


def _append(
    folder: Path, key: Ed25519PrivateKey, rounds: int, fault: tuple[int, int, bool]
) -> dict[str, Any]:
    library = ctypes.CDLL(None)
    told: dict[str, Any] = {"acked": [], "reserves": 1, "refused": False, "wrong": []}
    library.ledger_fault(fault[0], ctypes.c_long(fault[1]), int(fault[2]))
    ledger = None
    try:
        ledger = open_ledger(folder, key)
        for number in range(2, rounds + 2):
            ledger.reserve(**attempt(number), base_sha256="sha256:b", spec=SPEC)
            told["reserves"] += 1
            told["acked"].append(ledger.head)
            ledger.commit(**attempt(number), update_sha256="sha256:u")
            told["acked"].append(ledger.head)
    except (OSError, sqlite3.OperationalError, CollegiumError) as error:
        told["refused"] = True
        if isinstance(error, CollegiumError) and not isinstance(error, Interrupted):
            told["wrong"].append(f"{type(error).__name__}: {error}")
        if ledger is not None:
            told["wrong"] += _usable(ledger, told)
    except BaseException as error:  # a crash of the writer
        told["wrong"].append(f"{type(error).__name__}: {error}")
    told["fired"] = library.ledger_fired()
    library.ledger_fault(0, ctypes.c_long(0), 0)
    return told


def _usable(ledger: Any, told: dict[str, Any]) -> list[str]:
    """Return what is wrong with a ledger after a failed write: changed in memory, or still open."""
    wrong: list[str] = []
    if told["acked"] and ledger.head != told["acked"][-1]:
        wrong.append("memory holds an entry that was not acknowledged")
    try:
        ledger.reserve(**attempt(99), base_sha256="sha256:b", spec=SPEC)
        wrong.append("it went on after a failed write")
    except Refused:
        pass
    ledger.close()
    return wrong


if __name__ == "__main__":
    print(json.dumps(_preloaded(int(sys.argv[1]), int(sys.argv[2]))))

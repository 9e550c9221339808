"""How a device is, in one line: what runs, for how long yet, and how the last pull ended."""

from __future__ import annotations

import platform
from datetime import datetime
from typing import Any

import numpy as np
import onnxruntime as ort

from .errors import DeviceError
from .installed import Trust, require_current, verify_installed
from .store import State, Store


def health(store: Store, trust: Trust, clock: datetime | None = None) -> dict[str, Any]:
    """Return plain values about this device; "ok" is whether it may predict.

    Every byte of the bundle is checked and its self-test runs; nothing of any record is told.
    Raises ``DeviceError`` only where the home itself cannot be read.
    """
    state = store.state()
    answer = _told(state, clock)
    try:
        current = require_current(state)
        verified = verify_installed(store, state, current, trust, clock)
    except DeviceError as error:
        return answer | {"ok": False, "code": error.code, "reason": error.reason}
    predicate = verified.predicate
    left = datetime.fromisoformat(predicate["expires"]) - state.now(clock)
    return answer | {
        "expires": predicate["expires"],
        "days_left": left.days,
        "simulated": predicate["simulated"] is not False,
        "selftest_agreement": verified.selftest_agreement,
    }


def health_line(answer: dict[str, Any]) -> str:
    """Return the same for people, on one line."""
    parts = ["healthy" if answer["ok"] else f"NOT HEALTHY ({answer['code']}: {answer['reason']})"]
    if answer["version"] is not None:
        parts.append(f"{answer['name']} version {answer['version']}")
    if "days_left" in answer:
        parts.append(f"{answer['days_left']} days left")
        parts.append(f"self-test {answer['selftest_agreement']:.3f}")
        parts += ["simulated: no privacy guarantee"] if answer["simulated"] else []
    parts += ["rolled back"] if answer["rolled_back"] else []
    parts += ["the index is no longer fresh"] if answer["index_stale"] else []
    last = answer["last_pull"]
    if last:
        parts.append(f"last pull {last['time']}: {last['code'] or last['outcome']}")
    return ", ".join(parts)


def _told(state: State, clock: datetime | None) -> dict[str, Any]:
    """Return what the state alone tells."""
    current, expires = state.current, state.index_expires
    return {
        "ok": True,
        "code": "",
        "reason": "",
        "name": state.name,
        "version": current.version if current else None,
        "digest": current.digest if current else None,
        "previous": state.previous.version if state.previous else None,
        "floor": state.floor,
        "withdrawn": bool(current and state.withdrawal(current.digest)),
        "rolled_back": bool(current and current.version < state.floor),
        "index_sequence": state.index_sequence,
        "index_stale": bool(expires) and state.now(clock) >= datetime.fromisoformat(expires),
        "last_pull": dict(state.last_pull),
        "runtime": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": ort.__version__,
            "cryptography": _cryptography(),
        },
    }


def _cryptography() -> str:
    import cryptography

    return cryptography.__version__

"""What may come in and what may go out, with each reason by hand."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.client.gate import may_leave, read_base
from collegium.core.digest import sha256_hex
from collegium.core.layout import Layout
from collegium.core.messages import Invitation

LAYOUT = Layout.of({"w": (2, 2)})
OPEN = np.zeros(4, dtype="<f4").tobytes()


def read(payload: bytes, *, bound: float = 10.0, **changes: Any) -> tuple[str, np.ndarray]:
    """The verdict's code and the vector."""
    values: dict[str, Any] = {
        "job": "j", "site": "s", "plan": "p", "round": 2, "attempt": 1,
        "base_sha256": sha256_hex(payload), "layout": LAYOUT.digest, "deadline": 1.0,
        "nonce": "n", "site_ledger_head": "",
    }  # fmt: skip
    verdict, vector = read_base(
        Invitation(**values | changes),
        payload,
        LAYOUT,
        open_sha256=sha256_hex(OPEN),
        norm_bound=bound,
    )
    return verdict.code, vector


def as_bytes(*values: float) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


def test_accepted() -> None:
    code, vector = read(as_bytes(1, 2, 3, 4))
    assert code == "ok"
    assert vector.tolist() == [1, 2, 3, 4]
    assert vector.dtype == np.float32
    assert read(OPEN, round=1)[0] == "ok"


@pytest.mark.parametrize(
    ("payload", "changes", "code"),
    [
        (OPEN, {"layout": "sha256:x"}, "layout"),
        (OPEN[:-1], {}, "shape"),
        (OPEN + b"\0" * 4, {}, "shape"),
        (b"", {}, "shape"),
        (OPEN, {"base_sha256": "sha256:x"}, "base"),
        (as_bytes(0, 0, 0, 1), {"round": 1}, "base"),
        (as_bytes(0, np.nan, 0, 0), {}, "nonfinite"),
        (as_bytes(0, 0, 0, np.inf), {}, "nonfinite"),
        (as_bytes(8, 8, 8, 8), {}, "norm"),
        (as_bytes(3e38, 3e38, 3e38, 3e38), {}, "norm"),
        (as_bytes(0, 0, 0, 1e-3), {"bound": 0.0}, "norm"),
    ],
)
def test_refused(payload: bytes, changes: dict[str, Any], code: str) -> None:
    found, vector = read(payload, **changes)
    assert found == code
    assert len(vector) == 0


@given(st.binary(max_size=40))
def test_any_bytes(payload: bytes) -> None:
    code, vector = read(payload)
    assert (code == "ok") == (len(vector) == 4)
    if code == "ok":
        assert np.linalg.norm(vector) <= 10.0


@pytest.mark.parametrize(
    ("vector", "ok"),
    [
        (np.ones(4, dtype=np.float32), True),
        (np.ones(4, dtype=np.float64), False),
        (np.ones((2, 2), dtype=np.float32), False),
        (np.ones(5, dtype=np.float32), False),
        (np.array([1, np.nan, 1, 1], dtype=np.float32), False),
        (np.array([1, np.inf, 1, 1], dtype=np.float32), False),
        (np.full(4, 1.1, dtype=np.float32), False),
    ],
)
def test_may_leave(vector: np.ndarray, ok: bool) -> None:
    verdict = may_leave(vector, LAYOUT, 2.0)
    assert verdict.ok == ok
    assert verdict.code in {"ok", "internal"}  # why is told to the site's log alone

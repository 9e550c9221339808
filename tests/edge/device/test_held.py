"""What is read and held: no more memory than there is content, sealed, finite, split at spaces."""

import hashlib
import io
import os
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.edge.device import DeviceError, Form
from collegium.edge.device.files import read_limited, read_stream
from collegium.edge.device.model_file import hold_model
from collegium.edge.device.records import as_records
from collegium.edge.device.tables import DELIMITERS, array_rows, table_rows


def test_a_small_file_takes_little_memory_whatever_the_limit(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1234")
    tracemalloc.start()
    try:
        assert read_limited(tmp_path / "x", 1 << 28) == b"1234"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("expected", [0, 3, 1000])
def test_streams_are_read_to_their_end_or_just_past_the_limit(expected: int) -> None:
    content = os.urandom(200_000)
    assert read_stream(io.BytesIO(content), 200_000, expected) == content
    assert read_stream(io.BytesIO(content), 1 << 28, expected) == content
    for limit in (0, 1, 999, 65_536, 199_999):
        assert read_stream(io.BytesIO(content), limit, expected) == content[: limit + 1]


def test_the_limit_holds_for_a_file_that_grew(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12345")
    assert read_limited(tmp_path / "x", 5) == b"12345"
    with pytest.raises(DeviceError, match="TOO LARGE"):
        read_limited(tmp_path / "x", 4)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the model lies in the process")
def test_another_process_cannot_change_the_held_model(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the model" * 10_000)
    held = hold_model(path, 1 << 20)
    if held.descriptor < 0:
        pytest.skip("this system has no nameless files that can be sealed")
    place = Path(f"/proc/{os.getpid()}/fd/{held.descriptor}")
    try:
        with pytest.raises(PermissionError), place.open("r+b", buffering=0) as stream:
            stream.write(b"EVIL")
        with pytest.raises(PermissionError):
            os.truncate(held.descriptor, 0)
        found = hashlib.sha256(place.read_bytes()).hexdigest()
        assert held.digest == found == hashlib.sha256(path.read_bytes()).hexdigest()
    finally:
        held.drop()
    for most, code in ((10, "TOO LARGE"), (1 << 20, "MISSING")):
        before = len(list(Path("/proc/self/fd").iterdir()))
        with pytest.raises(DeviceError, match=code):
            hold_model(path, most)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("value", [1e300, -1e39, 3.5e38])
@pytest.mark.parametrize("kind", ["array", "table"])
def test_numbers_that_are_infinite_as_float32_are_refused(value: float, kind: str) -> None:
    """Warnings are errors in this run: the cast must not warn either."""
    numbers: dict[str, Any] = {"numbers": ("a", "b"), "missing": "mean"} if kind == "table" else {}
    form = Form(kind=kind, dtype="float32", shape=(2,), **numbers)
    with pytest.raises(DeviceError, match="finite numbers"):
        as_records(np.array([[1.0, value]]), form, None, "x")
    kept = as_records(np.array([[1.0, 3.4e38]]), form, None, "x")
    assert kept.dtype == np.float32 and np.isfinite(kept).all()


def test_spaces_between_fields_as_at_a_site() -> None:
    from collegium.data.reader_csv import DELIMITERS as SITE

    assert SITE == DELIMITERS
    text = 'age  dose "a\n\n50 1.5  x\n  51\t2 y \n'
    form = Form(kind="table", dtype="float32", shape=(2,), numbers=("dose", "age"))
    rows = table_rows(text, form, "x.txt", delimiter=" ")
    assert rows.x.tolist() == [[1.5, 50], [2, 51]] and rows.rows == (3, 4)
    with pytest.raises(DeviceError, match="row 2: has 2 fields, not 3"):
        array_rows("1 2 3\n1 2\n", (3,), "x.txt", " ")

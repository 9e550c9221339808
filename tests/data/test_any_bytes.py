"""No input makes a reader raise anything but our own errors, and no message holds a value."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collegium.core.errors import CollegiumError
from collegium.data.cells import LARGEST, Marks, as_number, as_text, numbers, plain
from collegium.data.checks import check
from collegium.data.inspect import inspect
from collegium.data.pixels import BadPicture, decoded, decoded_mask
from collegium.data.readers import read_site_data

Make = Callable[..., Any]
BOUNDS = {"a": (0.0, 9.0), "b": (0.0, 9.0)}
ANY = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SECRET = "4711.25"


def attempt(site: Any, plan: Any) -> None:
    """Read, check and inspect; only our own errors, with an exit code that is ours, may come."""
    try:
        data = read_site_data(site, plan)
    except CollegiumError as error:
        assert error.exit_code in (65, 66)
        assert SECRET not in error.message() and error.__cause__ is None
        return
    problems = check(data, model=plan.model, public_records=10**9)
    words = [str(each) for each in (*problems, *inspect(data, plan, site))]
    assert not any(SECRET in text for text in words)


def good_npz() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, x=np.full((5, 2), float(SECRET)), y=np.array([0, 1, 0, 1, 0]))
    return stream.getvalue()


def good_parquet() -> bytes:
    sink = io.BytesIO()
    table = {"a": [float(SECRET)] * 5, "b": [SECRET] * 5, "outcome": ["ill"] * 5}
    pq.write_table(pa.table(table), sink)
    return sink.getvalue()


CSV = f"a,b,outcome\n{SECRET},1,ill\n2,{SECRET},well\n".encode()
JSON = b'{"a": 1, "text": "x", "outcome": "ill"}\n{"text": "y", "outcome": "well"}\n'
GOOD = {"csv": CSV, "npz": good_npz(), "parquet": good_parquet(), "text": JSON}
NAMES = {"csv": "r.csv", "npz": "r.npz", "parquet": "r.parquet", "text": "r.jsonl"}


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A good file with some bytes changed, cut out or put in."""
    raw = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        count = draw(st.integers(0, 8))
        raw[at : at + count] = draw(st.binary(max_size=8))
    return bytes(raw)


@pytest.mark.parametrize("reader", GOOD)
@ANY
@given(data=st.data())
def test_damaged_files(
    tmp_path: Path, make_site: Make, plan_of: Make, reader: str, data: st.DataObject
) -> None:
    raw = data.draw(st.one_of(damaged(GOOD[reader]), st.binary(max_size=200)))
    (tmp_path / NAMES[reader]).write_bytes(raw)
    model = {"bounds": {}} if reader == "text" else {"bounds": BOUNDS}
    attempt(make_site(tmp_path, reader, NAMES[reader]), plan_of(**model))


CELL = st.one_of(
    st.sampled_from(["", "?", "1", "2.0", "ill", "well", "nan", "-inf", "a", '"', "1e400", "0x1"]),
    st.just(SECRET),
    st.text(max_size=6),
)


@ANY
@given(
    lines=st.lists(st.lists(CELL, min_size=2, max_size=4), max_size=6),
    task=st.sampled_from(["classification", "regression", "survival", "multilabel"]),
    incomplete=st.sampled_from(["refuse", "drop", "keep"]),
    delimiter=st.sampled_from(["comma", "tab", "space", None]),
)
def test_any_table_of_text(
    tmp_path: Path, make_site: Make, plan_of: Make, lines: Any, task: str, incomplete: str,
    delimiter: Any,
) -> None:  # fmt: skip
    between = {"tab": "\t", "space": " "}.get(delimiter, ",")
    rows = [["a", "b", "outcome", "dead"], *lines]
    text = "\n".join(between.join(row) for row in rows)
    (tmp_path / "r.csv").write_text(text, encoding="utf-8", errors="surrogatepass")
    classes = ("ill", "well") if task in ("classification", "multilabel") else ()
    target = {"regression": (0.0, 1.0), "survival": (0.0, 1.0, 2.0)}.get(task, ())
    plan = plan_of(bounds={"a": (0.0, 9.0)}, categories={"b": ("1", "2")}, unknown="other",
                   missing="mean", task=task, classes=classes, target=target)  # fmt: skip
    site = make_site(tmp_path, "csv", "r.csv", delimiter=delimiter, incomplete=incomplete,
                     event="dead", missing=("?",))  # fmt: skip
    attempt(site, plan)


@settings(max_examples=150, deadline=None)
@given(raw=st.binary(max_size=300), form=st.sampled_from(["PNG", "JPEG"]), data=st.data())
def test_any_picture(raw: bytes, form: str, data: st.DataObject) -> None:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(stream, form)
    raw = data.draw(st.one_of(st.just(raw), damaged(stream.getvalue())))
    for read in (decoded, decoded_mask):
        try:
            found = read(raw, (4, 4, 1))
        except BadPicture:
            continue
        assert found.shape[:2] == (4, 4)


@ANY
@given(data=st.data())
def test_any_dicom(tmp_path: Path, make_site: Make, plan_of: Make, data: st.DataObject) -> None:
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        SecondaryCaptureImageStorage, "1.2.3",
    )  # fmt: skip
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    made.Rows = made.Columns = 4
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PatientID, made.StudyDescription = SECRET, "ill"
    made.PixelData = bytes(range(16))
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=True)
    folder = tmp_path / "ct"
    folder.mkdir(exist_ok=True)
    (folder / "a.dcm").write_bytes(data.draw(damaged(stream.getvalue())))
    site = make_site(tmp_path, "dicom", "ct", label="StudyDescription", unit="PatientID")
    attempt(site, plan_of(bounds={}, image=(4, 4, 1)))


# --- one cell -------------------------------------------------------------------------------------


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_a_number_is_read_as_it_was_written(value: float) -> None:
    for text in (repr(value), f" {value!r}\t"):
        found = numbers([text], Marks())
        expected = np.float32(value) if abs(value) < LARGEST else np.float32(np.nan)
        assert found.bad[0] == (abs(value) >= LARGEST)
        assert np.array_equal(found.values[0], expected, equal_nan=True)


@given(st.text(max_size=12))
def test_plain_is_the_same_twice_and_keeps_the_number(text: str) -> None:
    once = plain(text)
    assert plain(once) == once
    if (number := as_number(text.strip())) is not None and once:
        assert as_number(once) == number
    assert as_text(text) == (once or None)


@given(st.lists(st.one_of(st.none(), st.integers(-9, 9), st.booleans(), st.floats(width=32))))
def test_typed_cells_equal_their_texts(cells: list[Any]) -> None:
    """A table says the same whether it is typed (parquet, sql) or written (csv)."""
    marks = Marks.of(["-9"])
    texts = ["" if as_text(cell) is None else str(as_text(cell)) for cell in cells]
    typed, written = numbers(cells, marks), numbers(texts, marks)
    assert np.array_equal(typed.values, written.values, equal_nan=True)
    assert np.array_equal(typed.bad, written.bad)
    array = np.array([np.nan if cell is None else float(cell) for cell in cells])
    packed = numbers(array, marks)
    assert np.array_equal(packed.bad, written.bad)
    fine = ~packed.bad
    assert np.array_equal(packed.values[fine], written.values[fine], equal_nan=True)

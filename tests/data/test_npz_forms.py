"""Arrays in an .npz in every form that sites have them, for every task; and bigger than memory."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from collegium.core.errors import InvalidInput
from collegium.data.checks import check
from collegium.data.growing import Growing, take
from collegium.data.reader_table import Table, split
from collegium.data.readers import read_site_data

Make = Callable[..., Any]
BOUNDS = {"a": (-9.0, 9.0), "b": (-9.0, 9.0)}
X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.array([0, 1, 0, 1, 0, 1])


@pytest.fixture
def read(tmp_path: Path, make_site: Make, plan_of: Make) -> Make:
    """Save arrays, and read them under a plan."""

    def act(arrays: dict[str, Any], data: dict[str, Any] | None = None, **model: Any) -> Any:
        np.savez(tmp_path / "x.npz", **arrays)
        held_out = model.pop("held_out", None)
        plan = plan_of(held_out, **{"bounds": BOUNDS} | model)
        found = read_site_data(make_site(tmp_path, "npz", "x.npz", **data or {}), plan)
        assert check(found, model=plan.model, public_records=99) == []
        return found

    return act


def test_medmnists_names_keep_order_and_give_a_calibration_part(read: Make) -> None:
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 5), ("val", 3), ("test", 2)):
        arrays[f"{part}_images"] = rng.integers(0, 256, (count, 4, 6), dtype=np.uint8)
        arrays[f"{part}_labels"] = rng.integers(0, 2, (count, 1), dtype=np.uint8)
    data = read(arrays, bounds={}, image=(4, 6, 1))
    for part, x, y in (
        ("train", data.train_x, data.train_y),
        ("val", data.calibration_x, data.calibration_y),
        ("test", data.test_x, data.test_y),
    ):
        assert np.array_equal(x[..., 0], arrays[f"{part}_images"]) and x.dtype == np.uint8
        assert np.array_equal(y, arrays[f"{part}_labels"][:, 0])


def test_encoded_parts_are_taken_as_they_are(read: Make, plan_of: Make) -> None:
    x, y = np.array([[np.nan, 1], [2, -1]], dtype=np.float32), np.array([1, 0])
    arrays = {"train_x": x, "train_y": y, "test_x": x[:0], "test_y": y[:0]}
    model = {
        "bounds": {"a": (0.0, 9.0)}, "categories": {"sex": ("f", "m")}, "unknown": "other",
        "missing": "mean", "classes": ("1", "0"),
    }  # fmt: skip
    data = read(arrays | {"encoded": np.array(True)}, **model)
    assert np.array_equal(data.train_x, x, equal_nan=True) and data.train_y.tolist() == [1, 0]
    assert len(data.test_y) == 0
    for encoded in (np.array(False), np.array([True]), np.array(1)):
        with pytest.raises(InvalidInput, match=r"x\.npz"):
            read(arrays | {"encoded": encoded}, **model)
    with pytest.raises(InvalidInput, match="do not belong together"):
        read(arrays | {"encoded": np.array(True), "train_y": y[:1]}, **model)


def test_rows_and_a_boolean_train_are_arrays_beside(read: Make) -> None:
    arrays = {
        "x": X, "y": Y, "center": np.array([0, 0, 1, 0, 0, 1]),
        "train": np.array([1, 0, 1, 1, 1, 0], dtype=bool), "who": np.array(list("uvwuxy")),
    }  # fmt: skip
    data = read(arrays, {"rows": {"center": ("0",)}, "unit": "who"})
    assert data.train_x[:, 0].tolist() == [0, 6, 8] and data.test_x[:, 0].tolist() == [2]
    assert data.train_units.tolist() == ["u", "u", "x"]
    with pytest.raises(InvalidInput, match="no array hospital"):
        read(arrays, {"rows": {"hospital": ("0",)}})
    with pytest.raises(InvalidInput, match="none of its 6 records"):
        read(arrays, {"rows": {"center": ("9",)}})


def test_a_table_in_an_array_is_read_as_any_table(read: Make) -> None:
    x = np.array([[1, 5], [np.nan, 6], [3, 7], [0, 5]])
    arrays = {"x": x, "y": np.array(["ill", "well", "ill", "well"])}
    model = {"bounds": {"a": (0.0, 9.0)}, "categories": {"b": ("5", "6")}, "unknown": "other"}
    data = read(arrays, {"incomplete": "drop", "zero_is_missing": ("a",)}, **model)
    found = np.concatenate([data.train_x, data.test_x])
    assert sorted(found.tolist()) == [[1, 0], [3, -1]]
    with pytest.raises(InvalidInput) as caught:
        read(arrays, **model)
    assert [p.where for p in caught.value.problems] == ['column "a", row 1']
    with pytest.raises(InvalidInput, match="3 values, the plan's features are 2"):
        read({"x": np.zeros((4, 3)), "y": np.zeros(4, dtype=int)}, **model)


def test_whole_numbers_are_indices_unless_they_are_renamed(read: Make) -> None:
    """Classes may be called "1" and "0": an integer array means places, as it always did."""
    data = read({"x": X, "y": Y}, {"test_share": 0.0}, classes=("1", "0"))
    assert data.train_y.tolist() == Y.tolist()
    data = read(
        {"x": X, "y": Y + 1}, {"test_share": 0.0, "labels": {"1": "bad", "2": "good"}},
        classes=("good", "bad"),
    )  # fmt: skip
    assert data.train_y.tolist() == (1 - Y).tolist()


def test_labels_of_every_task(read: Make) -> None:
    many = np.array([[0, 1, 1]] * 6)
    data = read({"x": X, "y": many}, task="multilabel", classes=("p", "q", "r"))
    assert data.train_y.shape[1:] == (3,) and data.train_y.dtype == np.float32
    number = {"task": "regression", "classes": (), "target": (0.0, 1.0)}
    assert read({"x": X, "y": X[:, :1]}, **number).train_y.ndim == 1
    time = {"task": "survival", "classes": (), "target": (0.0, 1.0)}
    both = np.stack([np.arange(6.0), Y], axis=1)
    beside = {"x": X, "y": np.arange(6.0), "event": Y}
    whole = {"test_share": 0.0}  # the split is that of each file's own arrays
    one = read({"x": X, "y": both}, whole, **time)
    two = read(beside, {"event": "event", **whole}, **time)
    assert np.array_equal(one.train_y, two.train_y) and one.train_y.shape[1:] == (2,)
    pictures = np.zeros((6, 4, 6), dtype=np.uint8)
    masks = pictures.copy()
    masks[:, 0, 0] = 1
    area = {"bounds": {}, "image": (4, 6, 1), "task": "segmentation"}
    data = read({"x": pictures, "y": masks}, **area)
    assert data.train_y.dtype == np.int64 and (data.train_y[:, 0, 0] == 1).all()
    for arrays, model in (
        ({"x": X, "y": many}, {"task": "multilabel", "classes": ("p", "q")}),
        ({"x": X, "y": many}, number),
        ({"x": X, "y": X[:, 0]}, time),
        ({"x": pictures, "y": masks + 7}, area),
        ({"x": pictures, "y": masks[:, :2]}, area),
    ):
        with pytest.raises(InvalidInput):
            read(arrays, **model)


def jpegs(count: int) -> dict[str, Any]:
    """Pictures of one grey each, as one array of bytes."""
    raw = []
    for number in range(count):
        stream = io.BytesIO()
        Image.new("RGB", (8, 8), (number * 20,) * 3).save(stream, "JPEG")
        raw.append(stream.getvalue())
    offset = np.cumsum([0, *map(len, raw)])
    return {"jpeg": np.frombuffer(b"".join(raw), dtype=np.uint8), "offset": offset,
            "y": np.arange(count) % 2}  # fmt: skip


def test_jpeg_bytes_with_offsets(read: Make) -> None:
    data = read(jpegs(6), {"test_share": 0.0}, bounds={}, image=(8, 8, 3))
    assert np.abs(data.train_x[:, 0, 0, 0].astype(int) - 20 * np.arange(6)).max() <= 2
    broken = jpegs(6)
    broken["jpeg"] = broken["jpeg"].copy()
    broken["jpeg"][: broken["offset"][2]] = 0
    with pytest.raises(InvalidInput, match=r"rows 0, 1, 2 of 6 pictures cannot be read"):
        read(broken, bounds={}, image=(8, 8, 3))
    for offset in (np.arange(3), jpegs(6)["offset"][::-1], np.array([0.5] * 7)):
        with pytest.raises(InvalidInput, match="do not belong together"):
            read(jpegs(6) | {"offset": offset}, bounds={}, image=(8, 8, 3))


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (24,)])
def test_pixels_of_another_form_become_the_plans(read: Make, shape: tuple[int, ...]) -> None:
    x = np.arange(48, dtype=np.uint8).reshape(2, *shape)
    data = read({"x": x, "y": Y[:2]}, {"test_share": 0.0}, bounds={}, image=(4, 6, 1))
    assert data.train_x.ravel().tolist() == list(range(48))


def test_pixels_of_another_size_are_resized_and_others_refused(read: Make) -> None:
    x = np.full((2, 8, 12), 7, dtype=np.uint8)
    data = read({"x": x, "y": Y[:2]}, {"test_share": 0.0}, bounds={}, image=(4, 6, 3))
    assert data.train_x.shape == (2, 4, 6, 3) and (data.train_x == 7).all()
    with pytest.raises(InvalidInput, match="Only uint8"):
        read({"x": x.astype(np.float32), "y": Y[:2]}, bounds={}, image=(4, 6, 1))
    with pytest.raises(InvalidInput, match="channels"):
        read({"x": np.zeros((2, 8, 12, 3), dtype=np.uint8), "y": Y[:2]}, bounds={},
             image=(4, 6, 1))  # fmt: skip


# --- the split --------------------------------------------------------------------------------


def test_the_calibration_part_is_a_share_of_the_training_records(read: Make) -> None:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(80, 2)), "y": rng.integers(0, 2, 80)}
    plain = read(arrays, {"test_share": 0.25})
    held = read(arrays, {"test_share": 0.25}, held_out=0.5)
    assert np.array_equal(plain.test_x, held.test_x) and plain.calibration_x is None
    rows = {row.tobytes() for row in held.train_x} | {row.tobytes() for row in held.calibration_x}
    assert rows == {row.tobytes() for row in plain.train_x}
    assert 10 < len(held.calibration_x) < 50
    assert len(held.train_x) + len(held.calibration_x) == len(plain.train_x)


def test_a_calibration_part_keeps_units_whole_and_a_seed_splits_anew() -> None:
    x = np.arange(600, dtype=np.float32).reshape(200, 3)
    units = np.array([f"p{n % 40}" for n in range(200)])
    table = Table(x=x, y=np.zeros(200, dtype=np.int64), units=units)
    options = {"asset": "ward", "test_share": 0.3, "held_out": 0.4}
    data = split(table, **options)
    parts = [set(u) for u in (data.train_units, data.test_units, data.calibration_units)]
    assert sum(map(len, parts)) == 40 and len(set().union(*parts)) == 40
    first, again, other = (split(table, **options, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first.test_x, again.test_x)
    assert set(first.test_units) != set(other.test_units) != set(data.test_units)


def test_a_test_file_of_its_own(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    for name, rows in (("train", ("1,1,ill", "2,2,well")), ("test", ("3,3,ill",))):
        (tmp_path / f"{name}.csv").write_text("\n".join(["a,b,outcome", *rows]))
    site = make_site(tmp_path, "csv", "train.csv", test_path="test.csv")
    data = read_site_data(site, plan_of(bounds=BOUNDS))
    assert data.train_x.tolist() == [[1, 1], [2, 2]] and data.test_x.tolist() == [[3, 3]]


# --- bigger than memory -------------------------------------------------------------------------


def test_rows_on_disk_equal_rows_in_memory() -> None:
    rng = np.random.default_rng(0)
    chunks = [rng.normal(size=(n, 3)).astype(np.float32) for n in (5, 0, 70, 1)]
    memory, disk, late = (Growing((3,), np.float32, spill_bytes=n) for n in (10**9, 0, 400))
    for chunk in chunks:
        for grown in (memory, disk, late):
            grown.append(chunk)
    whole = np.concatenate(chunks)
    chosen = rng.integers(0, 2, len(whole)).astype(bool)
    for grown, on_disk in ((memory, False), (disk, True), (late, True)):
        found = grown.finish()
        assert np.array_equal(found, whole) and isinstance(found, np.memmap) == on_disk
        part = take(found, chosen)
        assert np.array_equal(part, whole[chosen]) and isinstance(part, np.memmap) == on_disk
        assert part.flags.writeable


@pytest.mark.parametrize("reader", ["csv", "parquet"])
def test_a_table_larger_than_the_limit_is_read_alike(
    tmp_path: Path, make_site: Make, plan_of: Make, reader: str
) -> None:
    """More than one chunk of 8,192 rows, and arrays that lie in a nameless file."""
    rng = np.random.default_rng(0)
    columns = {
        "a": rng.normal(size=20_000), "b": rng.normal(size=20_000),
        "outcome": rng.integers(0, 2, 20_000),
    }  # fmt: skip
    if reader == "parquet":
        pq.write_table(pa.table(columns), tmp_path / "r")
    else:
        lines = (",".join(map(repr, map(float, row))) for row in zip(*columns.values()))  # noqa: B905
        (tmp_path / "r").write_text("\n".join([",".join(columns), *lines]))
    site, plan = make_site(tmp_path, reader, "r"), plan_of(0.2, bounds=BOUNDS)
    memory = read_site_data(site, plan)
    disk = read_site_data(site, plan, spill_bytes=10_000)
    assert isinstance(disk.train_x, np.memmap) and not isinstance(memory.train_x, np.memmap)
    for name in ("train_x", "train_y", "test_x", "test_y", "calibration_x", "calibration_y"):
        assert np.array_equal(getattr(memory, name), getattr(disk, name)), name
    assert len(memory.train_x) + len(memory.test_x) + len(memory.calibration_x) == 20_000

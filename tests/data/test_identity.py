"""What a record is: the same in every plan, order, format and way of writing it."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from collegium.data.identity import array_ids, pixel_id, row_ids, text_ids
from collegium.data.readers import read_site_data

Make = Callable[..., Any]
BOUNDS = {"age": (0.0, 99.0), "dose": (0.0, 9.0)}
TABLE = {
    "age": [30, 40, 50, 60], "dose": [1.5, 2, None, 4.25], "ward": ["A", "B", "A", "C"],
    "outcome": ["ill", "well", "well", "ill"],
}  # fmt: skip


def keyed(data: Any) -> list[bytes]:
    """Every identity, also of what was left out, sorted."""
    parts = (data.train_ids, data.test_ids, data.calibration_ids, data.other_ids)
    return sorted(row.tobytes() for part in parts if part is not None for row in part)


def csv(folder: Path, table: dict[str, list[Any]], name: str = "r.csv") -> str:
    rows = zip(*table.values(), strict=True)
    lines = [",".join("" if cell is None else str(cell) for cell in row) for row in rows]
    (folder / name).write_text("\n".join([",".join(table), *lines]) + "\n")
    return name


@pytest.fixture
def read(tmp_path: Path, make_site: Make, plan_of: Make) -> Make:
    """Read ``path`` with a plan of these features."""

    def act(reader: str, path: str, *, site: Any = None, **model: Any) -> Any:
        plan = plan_of(model.pop("held_out", None), **{"bounds": BOUNDS, "missing": "flag"} | model)
        words = {"incomplete": "keep"} | (site or {})
        return read_site_data(make_site(tmp_path, reader, path, **words), plan)

    return act


def test_every_plan_finds_the_same_records_in_a_table(tmp_path: Path, read: Make) -> None:
    name = csv(tmp_path, TABLE)
    ward = {"ward": ("A", "B", "C")}
    first = read("csv", name, categories=ward)
    known = keyed(first)
    assert len(set(known)) == 4
    plans: dict[str, dict[str, Any]] = {
        "categories swapped": {"categories": {"ward": ("C", "B", "A")}},
        "features swapped": {"bounds": dict(reversed(BOUNDS.items())), "categories": ward},
        "a feature less": {"bounds": {"age": (0.0, 99.0)}},
        "other bounds": {"bounds": {"age": (0.0, 60.0), "dose": (1.0, 2.0)}},
        "classes swapped": {"classes": ("well", "ill")},
        "another split": {"site": {"test_share": 0.9, "incomplete": "keep"}, "held_out": 0.5},
        "records left out": {"site": {"incomplete": "drop"}},
        "another mark of missing": {"site": {"missing": ("40",), "incomplete": "keep"}},
    }
    for what, words in plans.items():
        assert keyed(read("csv", name, **words)) == known, what
    again = read("csv", name, bounds={"age": (0.0, 99.0)})  # nor has the plan a say in the split
    assert np.array_equal(again.test_ids, first.test_ids)


def test_another_record_is_another(tmp_path: Path, read: Make) -> None:
    known = set(keyed(read("csv", csv(tmp_path, TABLE))))
    for column, value in (("age", 31), ("dose", 1.25), ("ward", "Z"), ("outcome", "well")):
        changed = {**TABLE, column: [value, *TABLE[column][1:]]}
        found = set(keyed(read("csv", csv(tmp_path, changed))))
        assert len(found & known) == 3, column
    renamed = {("sex" if name == "ward" else name): cells for name, cells in TABLE.items()}
    assert known.isdisjoint(keyed(read("csv", csv(tmp_path, renamed))))


def test_every_format_finds_the_same_records(tmp_path: Path, read: Make) -> None:
    known = keyed(read("csv", csv(tmp_path, TABLE)))
    moved = {name: TABLE[name][::-1] for name in sorted(TABLE, reverse=True)}
    assert keyed(read("csv", csv(tmp_path, moved))) == known
    marked = {**TABLE, "dose": ["1.50", "2.0", "NA", "4.25"], "age": ["30.0", "4e1", "50", "60"]}
    site = {"missing": ("NA",), "incomplete": "keep"}
    assert keyed(read("csv", csv(tmp_path, marked), site=site)) == known
    narrow = pa.table({**TABLE, "dose": pa.array(TABLE["dose"], type=pa.float32())})
    pq.write_table(narrow, tmp_path / "r.parquet")
    assert keyed(read("parquet", "r.parquet")) == known
    with sqlite3.connect(tmp_path / "r.sqlite") as database:
        database.execute("CREATE TABLE t (age, dose, ward, outcome)")
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?)", zip(*TABLE.values(), strict=True))
    site = {"query": "SELECT * FROM t", "incomplete": "keep"}
    assert keyed(read("sql", "r.sqlite", site=site)) == known


def test_odd_columns_of_parquet_that_nobody_reads_do_no_harm(tmp_path: Path, read: Make) -> None:
    odd = {
        "list": [[1]] * 4, "bytes": [b"\xff"] * 4, "at": np.array([1, 2, 3, 4], "M8[us]"),
        "exact": np.array([1, 2, 3, 4], "M8[ns]"), "sure": [True, False, None, True],
    }  # fmt: skip
    pq.write_table(pa.table({**TABLE, **odd}), tmp_path / "r.parquet")
    one = read("parquet", "r.parquet")
    assert len(set(keyed(one))) == 4
    two = read("parquet", "r.parquet", bounds={"age": (0.0, 99.0)}, categories={"at": ("1",)},
               unknown="other")  # fmt: skip
    assert keyed(two) == keyed(one)  # whatever it is read as


def test_names_that_site_toml_gives_are_no_part_of_a_record(tmp_path: Path, read: Make) -> None:
    (tmp_path / "bare.csv").write_text("30,1.5,ill\n40,2,well\n")
    one = read("csv", "bare.csv", site={"columns": ("age", "dose", "outcome")})
    two = read("csv", "bare.csv", site={"columns": ("dose", "age", "outcome")})
    assert keyed(one) == keyed(two) and one.train_ids is not None


def test_a_text_is_what_it_says(tmp_path: Path, read: Make) -> None:
    lines = [f"{'ill' if n % 2 else 'well'}\tword {n}" for n in range(9)]
    (tmp_path / "r.tsv").write_text("outcome\ttext\n" + "\n".join(lines) + "\n")
    objects = [json.dumps({"text": f" word {n}", "outcome": "ill", "extra": n}) for n in range(9)]
    (tmp_path / "r.jsonl").write_text("\n".join(reversed(objects)))
    model = {"name": "text:hashed", "bounds": {}, "missing": "refuse"}
    words = {"incomplete": "refuse"}
    known = keyed(read("text", "r.tsv", site=words, **model))
    assert len(set(known)) == 9
    assert keyed(read("text", "r.jsonl", site=words, **model)) == known


def test_json_objects_without_a_key_are_the_same_in_any_order(tmp_path: Path, read: Make) -> None:
    rows = [{"age": 1, "dose": 2, "outcome": "ill"}, {"age": 3, "outcome": "ill", "note": "a"}]
    cells = {name: [row.get(name) for row in rows] for name in ("age", "dose", "outcome", "note")}
    swapped = {name: cells[name][::-1] for name in sorted(cells)}
    assert np.array_equal(row_ids(cells, 2), row_ids(swapped, 2)[::-1])
    assert np.array_equal(row_ids(cells, 2)[0], row_ids({n: [rows[0][n]] for n in rows[0]}, 1)[0])


def test_a_picture_is_its_pixels_before_they_are_resized(tmp_path: Path, read: Make) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (5, 8, 10), dtype=np.uint8)
    for number, each in enumerate(pixels):
        folder = tmp_path / "xray" / ("ill" if number % 2 else "well")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(each).save(folder / f"{number}.png")
    words = {"incomplete": "refuse"}
    shapes = ((4, 5, 1), (8, 10, 1), (16, 16, 3))
    found = [
        keyed(read("images", "xray", site=words, bounds={}, missing="refuse", image=shape))
        for shape in shapes
    ]
    assert found[0] == found[1] == found[2] and len(set(found[0])) == 5
    np.savez(tmp_path / "x.npz", x=pixels, y=np.arange(5) % 2)
    one = read("npz", "x.npz", site=words, bounds={}, missing="refuse", image=(4, 5, 1))
    assert keyed(one) == found[0]
    raw = [path.read_bytes() for path in sorted((tmp_path / "xray").rglob("*.png"))]
    offset = np.cumsum([0, *map(len, raw)])
    np.savez(
        tmp_path / "j.npz", jpeg=np.frombuffer(b"".join(raw), dtype=np.uint8), offset=offset,
        y=np.array([1, 1, 0, 0, 0]),
    )  # fmt: skip
    two = read("npz", "j.npz", site=words, bounds={}, missing="refuse", image=(8, 8, 3))
    assert keyed(two) == found[0]


def test_arrays_are_their_values_and_labels(tmp_path: Path, read: Make) -> None:
    x = np.array([[1, 0.5], [np.nan, 2], [3, 4], [1, 7]])
    np.savez(tmp_path / "x.npz", x=x, y=np.array(["ill", "well", "ill", "ill"]))
    one = read("npz", "x.npz")
    two = read("npz", "x.npz", bounds={"b": (0.0, 1.0), "a": (0.0, 2.0)}, classes=("well", "ill"))
    left = read("npz", "x.npz", site={"incomplete": "drop"})
    assert keyed(one) == keyed(two) == keyed(left) and len(set(keyed(one))) == 4
    assert left.other_ids is not None and len(left.other_ids) == 1
    y = np.zeros(4)
    assert np.array_equal(array_ids(x, y), array_ids(x.astype(np.float32), y.astype(int)))
    assert not np.array_equal(array_ids(x, y), array_ids(x, y + 1))


cells = st.one_of(
    st.none(), st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.text(max_size=5),
    st.decimals(allow_nan=False), st.dates(), st.binary(max_size=3),
)  # fmt: skip


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=6))
def test_a_row_is_the_same_beside_any_others(rows: list[tuple[Any, Any]]) -> None:
    """How the cells of a column are converted together never shows in one of them."""
    columns = {"a": [row[0] for row in rows], "b": [row[1] for row in rows]}
    together = row_ids(columns, len(rows))
    for number, (a, b) in enumerate(rows):
        assert np.array_equal(together[number], row_ids({"b": [b], "a": [a]}, 1)[0])


@given(st.text(max_size=20), st.text(max_size=20))
def test_texts_that_differ_are_two(one: str, two: str) -> None:
    first, second = text_ids([one, two])
    assert np.array_equal(first, second) == (one.strip() == two.strip())


def test_grey_is_the_same_picture_as_its_three_equal_colours() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    colours = np.repeat(grey[:, :, None], 3, axis=2)
    assert pixel_id(grey) == pixel_id(grey[:, :, None]) == pixel_id(colours)
    colours[0, 0, 1] += 1
    assert pixel_id(grey) != pixel_id(colours)

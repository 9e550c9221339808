"""A table on a device is read cell by cell as the reader of a site reads it."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.errors import InvalidInput
from collegium.core.plan import Plan, Rounds, SiteRef
from collegium.core.plan_model import ModelRef
from collegium.core.site_data_section import DataSection
from collegium.data.reader_csv import CsvSource
from collegium.data.table_build import read_table
from collegium.edge.device import DeviceError, parse_form
from collegium.edge.device.tables import array_rows, mapped_rows, table_rows, texts_of

CATEGORIES = {"kind": ("x", "1", "2.0"), "sex": ("f", "m")}


def form(missing: str = "refuse", unknown: str = "refuse") -> Any:
    columns: list[dict[str, Any]] = [{"name": n, "low": 0, "high": 9} for n in ("age", "dose")]
    columns += [{"name": name, "categories": list(known)} for name, known in CATEGORIES.items()]
    told = {"schema": 1, "kind": "table", "dtype": "float32", "shape": [4], "columns": columns,
            "missing": missing, "unknown": unknown}  # fmt: skip
    return parse_form(json.dumps(told).encode())


def at_a_site(path: Path, missing: str, unknown: str, marks: tuple[str, ...]) -> np.ndarray:
    model = ModelRef(
        name="tabular:linear", task="classification", classes=("0", "1"),
        bounds={"age": (0.0, 9.0), "dose": (0.0, 9.0)}, categories=CATEGORIES,
        missing=missing, unknown=unknown,
    )  # fmt: skip
    plan = Plan(
        consortium="c", sites=(SiteRef(name="a", public_records=9),), model=model,
        rounds=Rounds(count=1),
    )  # fmt: skip
    section = DataSection(
        asset="a", reader="csv", path=path.name, label="y", missing=marks, incomplete="keep"
    )
    return np.asarray(read_table(CsvSource(path, section), plan, section).x)


CELLS = st.sampled_from(
    ["", " ", "1", "1.0", "2", "2.0", " 3.50 ", "-4e3", "1e39", "nan", "inf", "1_0", "?", "NA", "x",
     "f", "m ", "F", "other", "-1", "'", '"q"', "٣", "0x1"]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(
    rows=st.lists(st.lists(CELLS, min_size=4, max_size=4), min_size=1, max_size=4),
    missing=st.sampled_from(["refuse", "mean", "flag"]),
    unknown=st.sampled_from(["refuse", "other"]),
    marks=st.sampled_from([(), ("?",), ("NA", "1.0")]),
)
def test_cells_are_those_of_a_site(
    rows: list[list[str]],
    missing: str,
    unknown: str,
    marks: tuple[str, ...],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["y", "sex", "kind", "age", "dose"])  # another order, and one more
    writer.writerows(["0", row[3], row[2], row[0], row[1]] for row in rows)
    path = tmp_path_factory.mktemp("t") / "rows.csv"
    path.write_text(text.getvalue(), encoding="utf-8")
    try:
        expected = at_a_site(path, missing, unknown, marks)
    except InvalidInput:
        with pytest.raises(DeviceError, match=r"rows\.csv, row \d+, column '\w+': is"):
            table_rows(text.getvalue(), form(missing, unknown), "rows.csv", marks=marks)
        return
    found = table_rows(text.getvalue(), form(missing, unknown), "rows.csv", marks=marks)
    np.testing.assert_array_equal(found.x, expected)
    assert found.notes == ("rows.csv: 1 columns are not the model's and were passed over",)
    assert found.rows == tuple(range(2, len(rows) + 2))


def test_without_a_header_the_columns_are_exactly_those() -> None:
    found = table_rows('1,2,"x",f\r\n\r\n3,4,2,m\r\n', form(), "t")
    np.testing.assert_array_equal(found.x, [[1, 2, 0, 0], [3, 4, 2, 1]])
    assert found.rows == (1, 3) and found.notes == ()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no record"),
        ("age,dose,kind,sex\n", "holds no record"),
        ("age,dose,kind\n1,2,x\n", "column 'sex' is not in the header"),
        ("age,age,dose,kind,sex\n1,1,1,x,f\n", "'age' stands in the header twice"),
        ("age,dose,kind,sex\n1,2,x\n", "row 2: has 3 fields, not 4"),
        ("1,2,x,f,9\n", "row 1: has 5 fields, not 4"),
        ("1,2,x,f\n1,secret,x,f\n", "row 2, column 'dose': is no number"),
        ("1,,x,f\n", "row 1, column 'dose': is missing"),
        ("1,2,secret,f\n", "row 1, column 'kind': is no category"),
        ("1,2,,f\n", "row 1, column 'kind': is missing"),
        ('1,2,"x,f\n', "a quote is not closed"),
        ("1,2,x\0,f\n", "NUL"),
    ],
)
def test_errors_name_row_and_column_never_a_value(text: str, told: str) -> None:
    with pytest.raises(DeviceError) as caught:
        table_rows(text, form(), "t.csv")
    assert told in caught.value.reason and "secret" not in caught.value.reason
    assert (caught.value.code, caught.value.exit_code) == ("BAD INPUT", 65)


def test_rows_from_python() -> None:
    rows = [{"age": 1, "dose": 2.5, "kind": 2, "sex": "m", "more": 0},
            {"age": None, "dose": float("nan"), "kind": True, "sex": None}]  # fmt: skip
    found = mapped_rows(rows, form("flag", "other"))
    np.testing.assert_array_equal(found, [[1, 2.5, 2, 1], [np.nan, np.nan, 1, -1]])
    with pytest.raises(DeviceError, match="row 2, column 'age'"):
        mapped_rows(rows, form())
    with pytest.raises(DeviceError, match="'sex' is not there"):
        mapped_rows([{"age": 1, "dose": 1, "kind": "x"}], form())


def test_arrays_of_numbers() -> None:
    found = array_rows("a;b\n1;2\n\n3;4\n", (2, 1), "t", ";")
    assert found.x.tolist() == [[[1], [2]], [[3], [4]]] and found.rows == (2, 4)
    for text, told in (
        ("1;2;3\n", "3 fields, not 2"),
        ("1;2\n3;x\n", "row 2, field 2"),
        ("a;b", "no rec"),
    ):
        with pytest.raises(DeviceError, match=told):
            array_rows(text, (2, 1), "t", ";")


def test_lines_of_text_keep_what_is_in_them() -> None:
    assert list(texts_of(" a\u2028b \r\n\n\t\nc")) == [(1, " a\u2028b "), (4, "c")]

"""Tables as sites have them: missing values, categories, filters, delimiters, every task."""

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collegium.core.errors import InvalidInput, MissingInput, NotAvailable, Refused
from collegium.data.checks import check
from collegium.data.reader_table import Table
from collegium.data.readers import read_site_data

Make = Callable[..., Any]
BOUNDS = {"age": (0.0, 99.0), "dose": (0.0, 9.0)}
WARD = {"ward": ("A", "B", "1")}
HEADER = "age,dose,ward,outcome"


def write(folder: Path, *lines: str, name: str = "r.csv") -> str:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


def everything(data: Any) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels of all parts."""
    x, y = [data.train_x, data.test_x], [data.train_y, data.test_y]
    return np.concatenate(x), np.concatenate(y)


def rows(data: Any) -> list[list[float]]:
    """All records as (inputs, label), sorted; NaN as None."""
    x, y = everything(data)
    table = [[*a, float(b)] for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    return sorted([[None if np.isnan(v) else v for v in row] for row in table], key=str)


def test_numbers_then_categories_as_their_place_in_the_plans_list(
    tmp_path: Path, make_site: Make, plan_of: Make
) -> None:
    name = write(tmp_path, HEADER, "30,1,B,ill", "40,2,1.0,well", "50,3, A ,ill")
    plan = plan_of(bounds=BOUNDS, categories=WARD)
    data = read_site_data(make_site(tmp_path, "csv", name), plan)
    assert rows(data) == [[30, 1, 1, 0], [40, 2, 2, 1], [50, 3, 0, 0]]
    assert data.train_x.dtype == np.float32


@pytest.mark.parametrize(
    ("known", "cell", "place"),
    [(("1", "2"), "1.0", 0), (("1.0", "2.0"), "2", 1), (("01", "1"), "01", 0), (("01",), "1", -1)],
)
def test_a_whole_number_is_one_category_however_it_is_written(
    tmp_path: Path, make_site: Make, plan_of: Make, known: tuple[str, ...], cell: str, place: int
) -> None:
    name = write(tmp_path, HEADER, f"30,1,{cell},ill")
    plan = plan_of(bounds=BOUNDS, categories={"ward": known}, unknown="other")
    assert rows(read_site_data(make_site(tmp_path, "csv", name), plan)) == [[30, 1, place, 0]]


def test_unknown_categories_are_refused_or_counted_as_none(
    tmp_path: Path, make_site: Make, plan_of: Make
) -> None:
    name = write(tmp_path, HEADER, "30,1,B,ill", "40,2,Z,well")
    site = make_site(tmp_path, "csv", name)
    with pytest.raises(InvalidInput) as caught:
        read_site_data(site, plan_of(bounds=BOUNDS, categories=WARD))
    assert [p.where for p in caught.value.problems] == ['column "ward", row 3']
    other = plan_of(bounds=BOUNDS, categories=WARD, unknown="other")
    data = read_site_data(site, other)
    assert rows(data) == [[30, 1, 1, 0], [40, 2, -1, 1]]
    assert check(data, model=other.model, public_records=9) == []
    assert check(data, model=plan_of(bounds=BOUNDS, categories=WARD).model, public_records=9)


MISSING = ("30,1,B,ill", "?,2,A,well", "50,-9,?,ill", "60,,A,ill", "70,4,A,?")


@pytest.mark.parametrize(("incomplete", "expected"), [("drop", [[30, 1, 1, 0]]), ("keep", None)])
def test_missing_values(
    tmp_path: Path, make_site: Make, plan_of: Make, incomplete: str, expected: Any
) -> None:
    name = write(tmp_path, HEADER, *MISSING)
    options = {"missing": ("?", "-9"), "incomplete": incomplete}
    site = make_site(tmp_path, "csv", name, **options)
    plan = plan_of(bounds=BOUNDS, categories=WARD, missing="flag")
    if expected is not None:
        assert rows(read_site_data(site, plan)) == expected
        return
    with pytest.raises(InvalidInput) as caught:  # a record without a label is nobody's
        read_site_data(site, plan)
    assert [p.where for p in caught.value.problems] == ['column "outcome", row 6']
    name = write(tmp_path, HEADER, *MISSING[:-1])
    data = read_site_data(make_site(tmp_path, "csv", name, **options), plan)
    assert rows(data) == [[30, 1, 1, 0], [50, None, -1, 0], [60, None, 0, 0], [None, 2, 0, 1]]
    assert check(data, model=plan.model, public_records=9) == []


def test_missing_values_are_refused_by_column_and_row(
    tmp_path: Path, make_site: Make, plan_of: Make
) -> None:
    name = write(tmp_path, HEADER, *MISSING)
    plan = plan_of(bounds=BOUNDS, categories=WARD)
    with pytest.raises(InvalidInput) as caught:
        read_site_data(make_site(tmp_path, "csv", name, missing=("?", "-9")), plan)
    assert [p.where for p in caught.value.problems] == [
        'column "age", row 3',
        'column "dose", rows 4, 5',
        'column "ward", row 4',
        'column "outcome", row 6',
    ]
    keep = make_site(tmp_path, "csv", name, missing=("?", "-9"), incomplete="keep")
    with pytest.raises(InvalidInput, match="is missing"):  # the plan says nothing of missing ones
        read_site_data(keep, plan)


def test_zero_may_mean_not_measured(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    name = write(tmp_path, HEADER, "30,0,B,ill", "0,2,A,well")
    plan = plan_of(bounds=BOUNDS, categories=WARD)
    options = {"zero_is_missing": ("dose",), "incomplete": "drop"}
    assert rows(read_site_data(make_site(tmp_path, "csv", name, **options), plan)) == [[0, 2, 0, 1]]
    with pytest.raises(InvalidInput) as caught:
        read_site_data(make_site(tmp_path, "csv", name, zero_is_missing=("ward",)), plan)
    assert "zero_is_missing" in caught.value.message()


def test_rows_and_labels_of_this_site(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    lines = ("age,dose,where,outcome", "30,1,1,yes", "40,x,2,no", "50,3,1.0,no")
    name = write(tmp_path, *lines)
    plan = plan_of(bounds=BOUNDS)
    options = {"rows": {"where": ("1",)}, "labels": {"yes": "ill", "no": "well"}}
    data = read_site_data(make_site(tmp_path, "csv", name, **options), plan)
    assert rows(data) == [[30, 1, 0], [50, 3, 1]]  # the faulty row is another site's
    with pytest.raises(InvalidInput, match="none of its 3 rows is this site's"):
        read_site_data(make_site(tmp_path, "csv", name, **options | {"rows": {"where": ("7",)}}),
                       plan)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "delimiter", "encoding", "between"),
    [
        ("r.tsv", None, "utf-8", "\t"),
        ("r.data", "semicolon", "latin-1", ";"),
        ("r.txt", "pipe", "utf-16", "|"),
        ("r.txt", "space", "utf-8", "   "),
    ],
)
def test_delimiters_and_encodings(
    tmp_path: Path, make_site: Make, plan_of: Make,
    name: str, delimiter: str | None, encoding: str, between: str,
) -> None:  # fmt: skip
    lines = [("30", "1", "Ärzte"), ("40", "2", "ill")]
    text = "\r\n".join(between.join(line) for line in lines)
    (tmp_path / name).write_bytes(text.encode(encoding))
    site = make_site(
        tmp_path, "csv", name, columns=("age", "dose", "outcome"), delimiter=delimiter,
        encoding=encoding, labels={"Ärzte": "well"},
    )  # fmt: skip
    assert rows(read_site_data(site, plan_of(bounds=BOUNDS))) == [[30, 1, 1], [40, 2, 0]]


# --- every task -------------------------------------------------------------------------------


def test_multilabel(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    name = write(tmp_path, "age,dose,cough,fever", "30,1,0,1", "40,2,1.0,0")
    plan = plan_of(bounds=BOUNDS, task="multilabel", classes=("fever", "cough"))
    data = read_site_data(make_site(tmp_path, "csv", name), plan)
    x, y = everything(data)
    assert sorted(np.hstack([x, y]).tolist()) == [[30, 1, 1, 0], [40, 2, 0, 1]]
    assert y.dtype == np.float32 and check(data, model=plan.model, public_records=9) == []
    name = write(tmp_path, "age,dose,cough,fever", "30,1,0,2", "40,2,yes,0")
    with pytest.raises(InvalidInput) as caught:
        read_site_data(make_site(tmp_path, "csv", name), plan)
    assert [p.where for p in caught.value.problems] == [
        'column "fever", row 2', 'column "cough", row 3',
    ]  # fmt: skip


def test_regression(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    name = write(tmp_path, "age,dose,outcome", "30,1,2.5", "40,2,-1e3")
    plan = plan_of(bounds=BOUNDS, task="regression", classes=(), target=(0.0, 5.0))
    data = read_site_data(make_site(tmp_path, "csv", name), plan)
    assert rows(data) == [[30, 1, 2.5], [40, 2, -1000]]
    assert data.train_y.dtype == np.float32 and data.train_y.ndim == 1
    assert check(data, model=plan.model, public_records=9) == []


def test_survival(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    name = write(tmp_path, "age,dose,days,dead", "30,1,12,1", "40,2,90.5,0")
    plan = plan_of(bounds=BOUNDS, task="survival", classes=(), target=(0.0, 30.0, 60.0))
    site = make_site(tmp_path, "csv", name, label="days", event="dead")
    data = read_site_data(site, plan)
    _, y = everything(data)
    assert sorted(y.tolist()) == [[12, 1], [90.5, 0]] and y.dtype == np.float32
    assert check(data, model=plan.model, public_records=9) == []
    with pytest.raises(InvalidInput, match="event is missing"):
        read_site_data(make_site(tmp_path, "csv", name, label="days"), plan)
    name = write(tmp_path, "age,dose,days,dead", "30,1,-1,1", "40,2,9,2")
    with pytest.raises(InvalidInput) as caught:
        read_site_data(make_site(tmp_path, "csv", name, label="days", event="dead"), plan)
    assert [p.where for p in caught.value.problems] == [
        'column "days", row 2', 'column "dead", row 3',
    ]  # fmt: skip


# --- the same table from every kind of file -----------------------------------------------------

RECORDS = {
    "age": [30.0, 40.0, None, 60.0],
    "dose": [1, 2, 3, 4],
    "ward": ["B", "1", "A", None],
    "patient": [7, 7, 8, 9],
    "outcome": ["ill", "well", "ill", "ill"],
}
EXPECTED = [[30, 1, 1, 0], [40, 2, 2, 1], [60, 4, -1, 0], [None, 3, 0, 0]]


def as_csv(folder: Path) -> dict[str, Any]:
    lines = zip(*RECORDS.values(), strict=True)
    text = [",".join("" if v is None else str(v) for v in line) for line in lines]
    return {"reader": "csv", "path": write(folder, ",".join(RECORDS), *text)}


def as_parquet(folder: Path) -> dict[str, Any]:
    pq.write_table(pa.table(RECORDS), folder / "r.parquet")
    return {"reader": "parquet", "path": "r.parquet"}


def as_sql(folder: Path) -> dict[str, Any]:
    database = sqlite3.connect(folder / "r.db")
    database.execute("CREATE TABLE visits (age REAL, dose INT, ward TEXT, patient INT, outcome)")
    database.executemany(
        "INSERT INTO visits VALUES (?, ?, ?, ?, ?)", zip(*RECORDS.values(), strict=True)
    )
    database.commit()
    database.close()
    return {"reader": "sql", "path": "r.db", "query": "SELECT * FROM visits"}


def as_sql_url(folder: Path) -> dict[str, Any]:
    return as_sql(folder) | {"path": f"sqlite:///{folder / 'r.db'}"}


@pytest.mark.parametrize("form", [as_csv, as_parquet, as_sql, as_sql_url])
@pytest.mark.parametrize("unit", [None, "patient"])
def test_one_table_however_it_is_kept(
    tmp_path: Path, make_site: Make, plan_of: Make, form: Any, unit: str | None
) -> None:
    site = make_site(tmp_path, **form(tmp_path), incomplete="keep", unit=unit)
    plan = plan_of(bounds=BOUNDS, categories=WARD, missing="mean")
    data = read_site_data(site, plan)
    assert rows(data) == EXPECTED
    again = read_site_data(make_site(tmp_path, **as_csv(tmp_path), incomplete="keep", unit=unit),
                           plan)  # fmt: skip
    assert data.train_x.tobytes() == again.train_x.tobytes()  # the split is the same, too
    if unit:
        assert sorted([*data.train_units, *data.test_units]) == ["7", "7", "8", "9"]


def test_texts_as_lines_of_json_and_as_tables(
    tmp_path: Path, make_site: Make, plan_of: Make
) -> None:
    texts = ['He said "no"', "a, b\tc", "Ünder"]
    objects = [{"text": t, "outcome": o} for t, o in zip(texts, "010", strict=True)]
    write(tmp_path, *(json.dumps(each) for each in objects), "", name="r.jsonl")
    quoted = [f'"{t.replace(chr(34), chr(34) * 2)}",{o}' for t, o in zip(texts, "010", strict=True)]
    write(tmp_path, "text,outcome", *quoted, name="r.csv")
    write(tmp_path, "outcome\ttext", *(f"{o}\t{t}" for t, o in zip(texts, "010", strict=True)),
          name="r.tsv")  # fmt: skip
    plan = plan_of(bounds={})
    for name in ("r.jsonl", "r.csv"):
        data = read_site_data(make_site(tmp_path, "text", name, text="text"), plan)
        x, y = everything(data)
        assert sorted(zip(x, y.tolist(), strict=True)) == sorted(zip(texts, [0, 1, 0], strict=True))
        assert x.dtype == object
    tabs = make_site(tmp_path, "text", "r.tsv", columns=("outcome", "text"), rows={"outcome": "01"})
    x, _ = everything(read_site_data(tabs, plan))
    assert sorted(x) == sorted(texts)  # a tab and quotes are letters of the text


def test_a_query_that_fails_says_neither_url_nor_value(
    tmp_path: Path, make_site: Make, plan_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, secret = plan_of(bounds=BOUNDS), "pa55word"
    options = as_sql(tmp_path) | {"query": f"SELECT {secret} FROM visits"}
    with pytest.raises(InvalidInput) as caught:
        read_site_data(make_site(tmp_path, **options), plan)
    assert secret not in caught.value.message() and caught.value.__cause__ is None
    monkeypatch.setenv("WARD_DB", f"sqlite:////nowhere/{secret}/r.db")
    with pytest.raises(MissingInput) as caught_too:
        read_site_data(make_site(tmp_path, **options | {"path": "$WARD_DB"}), plan)
    assert secret not in caught_too.value.message()
    for url in (f"nodialect://{secret}", "://", f"sqlite+{secret}://x"):
        with pytest.raises((InvalidInput, NotAvailable)) as failed:
            read_site_data(make_site(tmp_path, **options | {"path": url}), plan)
        assert secret not in failed.value.message()
    with pytest.raises(InvalidInput, match="query is missing"):
        read_site_data(make_site(tmp_path, **options | {"query": None}), plan)
    write_it = options | {"query": "DELETE FROM visits"}
    with pytest.raises(InvalidInput):
        read_site_data(make_site(tmp_path, **write_it), plan)
    assert rows(read_site_data(make_site(tmp_path, **as_sql_kept(tmp_path)), plan_of(
        bounds={"dose": (0.0, 9.0)})))  # fmt: skip


def as_sql_kept(folder: Path) -> dict[str, Any]:
    """The same database again: nothing was deleted."""
    return {"reader": "sql", "path": "r.db", "query": "SELECT dose, outcome FROM visits"}


# --- plug-ins -----------------------------------------------------------------------------------


def test_a_plugin_reads_where_policy_names_it(
    tmp_path: Path, make_site: Make, plan_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collegium.data import readers

    def reader(file: Any, plan: Any) -> Table:
        count = len(plan.model.bounds)
        x = np.arange(8 * count, dtype=np.float32).reshape(8, count)
        return Table(x=x, y=np.zeros(8, dtype=np.int64))

    def failing(file: Any, plan: Any) -> Table:
        raise ValueError("4711 is no blood pressure")

    found = {"plugin:ours": reader, "plugin:bad": failing, "plugin:odd": lambda f, p: [1, 2]}
    monkeypatch.setattr(readers, "load_plugin", lambda group, name: found[name])
    plan, known = plan_of(bounds=BOUNDS), tuple(found)
    data = read_site_data(make_site(tmp_path, "plugin:ours", "", plugins=known), plan)
    assert len(data.train_x) + len(data.test_x) == 8
    with pytest.raises(Refused):
        read_site_data(make_site(tmp_path, "plugin:ours", ""), plan)
    for name in ("plugin:bad", "plugin:odd"):
        with pytest.raises(InvalidInput) as caught:
            read_site_data(make_site(tmp_path, name, "", plugins=known), plan)
        assert "4711" not in caught.value.message()

"""What people are told about their records: each finding where it belongs, and nowhere else."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collegium.data.inspect import inspect
from collegium.data.readers import read_site_data

Make = Callable[..., Any]
COUNT = 400
BOUNDS = {"age": (0.0, 100.0), "chol": (0.0, 600.0), "sex": (0.0, 1.0)}
WARD = {"ward": ("A", "B")}
HEADER = (*BOUNDS, *WARD, "outcome")


def good() -> dict[str, np.ndarray]:
    """Columns with which nothing is wrong."""
    rng = np.random.default_rng(3)
    return {
        "age": rng.uniform(20, 90, COUNT).round(6),
        "chol": rng.normal(240, 40, COUNT).round(),
        "sex": rng.integers(0, 2, COUNT),
        "ward": rng.choice(["A", "B"], COUNT),
        "outcome": rng.choice(["ill", "well"], COUNT),
    }


@pytest.fixture
def look(tmp_path: Path, make_site: Make, plan_of: Make) -> Make:
    """Write columns as csv, read and inspect them: {(where, what)}."""

    def act(
        columns: dict[str, Any], raw: Callable[[bytes], bytes] = bytes,
        data: dict[str, Any] | None = None, **model: Any,
    ) -> set[tuple[str, str]]:  # fmt: skip
        lines = [",".join(columns)]
        lines += [",".join(map(str, row)) for row in zip(*columns.values(), strict=True)]
        (tmp_path / "r.csv").write_bytes(raw("\n".join([*lines, ""]).encode()))
        site = make_site(tmp_path, "csv", "r.csv", **{"test_share": 0.3} | (data or {}))
        plan = plan_of(**{"bounds": BOUNDS, "categories": WARD} | model)
        found = inspect(read_site_data(site, plan), plan, site)
        assert all(each.cure for each in found)
        return {(each.where, each.what) for each in found}

    return act


def test_good_records_have_no_finding(look: Make) -> None:
    assert look(good()) == set()


def some(values: np.ndarray, fill: Any, share: float = 0.2) -> np.ndarray:
    """The values, the first share of them replaced."""
    values = values.copy().astype(object)
    values[: int(len(values) * share)] = fill
    return values


def first(columns: set[tuple[str, str]]) -> tuple[str, str]:
    (only,) = columns
    return only


@pytest.mark.parametrize(
    ("column", "change", "where", "what"),
    [
        ("chol", lambda v: some(v, 0), 'column "chol"', "are exactly 0, far from all other"),
        ("chol", lambda v: v * 0 + 200, 'column "chol"', "all its values are alike"),
        ("age", lambda v: v * 12, 'column "age"', "outside the plan's bounds"),
        ("ward", lambda v: np.full(COUNT, "A"), 'column "ward"', "all its values are alike"),
        ("outcome", lambda v: np.full(COUNT, "ill"), "labels", "no record of class well"),
        ("outcome", np.sort, "labels", "the rows are sorted by label"),
    ],
)
def test_one_column_that_looks_wrong(
    look: Make, column: str, change: Callable[..., Any], where: str, what: str
) -> None:
    columns = good()
    found = first(look(columns | {column: change(columns[column])}))
    assert found[0] == where and what in found[1]


def test_rare_classes_are_named(look: Make) -> None:
    columns = good()
    columns["outcome"][:] = "ill"
    columns["outcome"][5:9] = "well"
    assert "fewer than 10 records of class well" in first(look(columns))[1]


def test_zeros_that_are_plausible_are_left_alone(look: Make) -> None:
    """A count, a binary column, a share that begins at 0, and zeros that the site has named."""
    rng = np.random.default_rng(0)
    columns = good()
    for values in (rng.poisson(2, COUNT), rng.exponential(50, COUNT).round(), columns["sex"]):
        assert look(columns | {"chol": values}) == set()
    named = {"zero_is_missing": ("chol",), "incomplete": "keep"}
    zeros = columns | {"chol": some(columns["chol"], 0)}
    assert look(zeros, data=named, missing="flag") == set()


def test_shares_missing_and_not_listed(look: Make) -> None:
    columns = good()
    gaps = columns | {"chol": some(columns["chol"], "", 0.5), "ward": some(columns["ward"], "Z")}
    found = look(gaps, data={"incomplete": "keep"}, missing="mean", unknown="other")
    assert {where for where, _ in found} == {'column "chol"', 'column "ward"'}
    assert {what.partition("%")[2] for _, what in found} == {
        " are missing", " are none of the plan's categories (or missing)",
    }  # fmt: skip


def test_columns_that_changed_places(look: Make) -> None:
    columns = good()
    swapped = {"age": columns["chol"], "chol": columns["age"]}
    bounds = BOUNDS | {"chol": (100.0, 600.0)}
    found = look(columns | swapped, bounds=bounds)
    assert ('columns "age" and "chol"', "each lies within the other's bounds and outside its own")\
        in found  # fmt: skip


def test_few_and_repeated_records(look: Make) -> None:
    columns = {name: np.tile(values[:30], 2) for name, values in good().items()}
    found = look(columns)
    assert any("repeat another one exactly" in what for _, what in found)
    assert any("fewer than 50" in what for _, what in found)
    assert not any("in both" in what for _, what in found)  # equal records are in one part


def test_a_unit_and_a_record_in_two_parts(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (200, 2))
    np.savez(
        tmp_path / "x.npz", train_x=x[:120], test_x=x[119:], train_y=np.arange(120) % 2,
        test_y=np.arange(81) % 2, train_units=np.arange(120), test_units=np.arange(117, 198),
    )  # fmt: skip
    site = make_site(tmp_path, "npz", "x.npz")
    plan = plan_of(bounds={"a": (0.0, 1.0), "b": (0.0, 1.0)})
    found = {(each.where, each.what) for each in inspect(read_site_data(site, plan), plan, site)}
    assert found == {
        ("training and test part", "1 records are in both"),
        ("training and test part", "3 units have records in both"),
    }


def test_what_the_file_itself_looks_like(look: Make) -> None:
    columns = good()
    crlf = look(columns, raw=lambda text: b"\xef\xbb\xbf" + text.replace(b"\n", b"\r\n"))
    assert {what[:20] for _, what in crlf} == {"its lines end as on ", "it begins with a mar"}
    quoted = columns | {"age": [f'"{value}"' for value in columns["age"]]}
    assert first(look(quoted)) == ("r.csv", "numbers stand in quotes")
    extra = columns | {"patient": np.arange(COUNT)}
    assert first(look(extra)) == ("r.csv", 'columns that the plan does not read: "patient"')
    assert look(extra, data={"unit": "patient"}) == set()
    accents = columns | {"ward": some(columns["ward"], "Ä")}
    found = look(accents, data={"encoding": "latin-1"}, unknown="other")
    assert ("r.csv", "it looks like UTF-8, but [data] encoding is latin-1") in found


def test_drift_of_a_parquet_file(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    columns = good() | {"shoe": np.arange(COUNT)}
    pq.write_table(pa.table(columns), tmp_path / "r.parquet")
    site = make_site(tmp_path, "parquet", "r.parquet", test_share=0.3)
    plan = plan_of(bounds=BOUNDS, categories=WARD)
    (found,) = inspect(read_site_data(site, plan), plan, site)
    assert found.what == 'columns that the plan does not read: "shoe"'


@pytest.mark.parametrize(
    ("model", "y", "words"),
    [
        ({"task": "regression", "target": (0.0, 1.0)}, np.full(100, 7.0), ["outside", "alike"]),
        ({"task": "survival", "target": (0.0, 1.0)}, np.tile([[5.0, 0.0]], (100, 1)),
         ["fewer than 10 were seen", "beyond"]),
        ({"task": "multilabel", "classes": ("p", "q")}, np.tile([[0.0, 1.0]], (100, 1)),
         ["no record has it", "every record has it"]),
        ({"task": "segmentation", "classes": ("p", "q"), "image": (2, 2, 1), "bounds": {}},
         np.zeros((100, 2, 2), dtype=int), ["no pixel of class q"]),
    ],
)  # fmt: skip
def test_labels_of_other_tasks(
    tmp_path: Path, make_site: Make, plan_of: Make, model: Any, y: Any, words: list[str]
) -> None:
    from collegium.data.site_data import SiteData

    model = {"bounds": {"a": (0.0, 1.0)}, "classes": ()} | model
    x = np.random.default_rng(0).uniform(0, 1, (100, 1)).astype(np.float32)
    if "image" in model:
        x = np.random.default_rng(0).integers(0, 256, (100, 2, 2, 1), dtype=np.uint8)
    data = SiteData(asset="ward", train_x=x, train_y=y, test_x=x[:50] + 1, test_y=y[:50])
    found = inspect(data, plan_of(**model), make_site(tmp_path, "npz", "x.npz"))
    texts = [each.what for each in found]
    assert len(texts) == len(words)
    assert all(any(word in text for text in texts) for word in words)


def test_an_empty_part_is_said(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    from collegium.data.site_data import SiteData

    x, y = np.ones((60, 1), dtype=np.float32), np.zeros(60, dtype=np.int64)
    data = SiteData(asset="ward", train_x=x[:0], train_y=y[:0], test_x=x, test_y=y)
    plan = plan_of(bounds={"a": (0.0, 1.0)})
    site = make_site(tmp_path, "npz", "x.npz")
    found = inspect(data, plan, site)
    assert ("training part", "it holds no record") in [(each.where, each.what) for each in found]
    whole = replace(data, train_x=x, train_y=y)
    assert "it holds no record" not in [each.what for each in inspect(whole, plan, site)]

"""A site's own file as records: what is read, what is refused, and what is never said."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.errors import InvalidInput, MissingInput
from collegium.core.site_file import (
    DataSection,
    LedgerSection,
    PolicySection,
    SiteFile,
    SiteSection,
)
from collegium.data.reader_table import Table, split
from collegium.data.readers import read_site_data

Make = Callable[..., Any]
HEADER = "mass,outcome,age,patient,dose"
ROWS = ("0.25,well,1.5,p1,-3", "-1,ill,2,p2,0.5", "0,well,3e1,p1,7", "9,ill,4,p3,8")
SECRET = "4711.25"


def site(
    folder: Path, reader: str, name: str, *, share: float = 0.5, unit: str | None = None
) -> Any:
    """A site file over one file of records."""
    return SiteFile(
        site=SiteSection(name="s0"),
        data=DataSection(
            asset="ward", reader=reader, path=name, label="outcome", unit=unit, test_share=share
        ),  # type: ignore[arg-type]
        policy=PolicySection(max_epsilon=1, delta=1e-5),
        ledger=LedgerSection(path="ledger.sqlite"),
        folder=folder,
    )


def write_csv(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "records.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def whole(data: Any) -> np.ndarray:
    """Both parts together, sorted: what was read, whatever the split."""
    x = np.concatenate([data.train_x, data.test_x])
    y = np.concatenate([data.train_y, data.test_y])
    return np.array(
        sorted([*row, label] for row, label in zip(x.tolist(), y.tolist(), strict=True))
    )


# --- csv ------------------------------------------------------------------------------------


def test_csv_columns_come_in_the_order_of_the_plans_bounds(tmp_path: Path, make_plan: Make) -> None:
    write_csv(tmp_path, *ROWS)
    data = read_site_data(site(tmp_path, "csv", "records.csv"), make_plan(1))
    # bounds of the tiny plan: age, dose, mass; ill is class 0, well class 1
    expected = [[1.5, -3, 0.25, 1], [2, 0.5, -1, 0], [4, 8, 9, 0], [30, 7, 0, 1]]
    assert whole(data).tolist() == expected
    assert data.train_x.dtype == np.float32 and data.train_y.dtype == np.int64


def test_csv_units_and_labels_as_numbers(tmp_path: Path, make_plan: Make) -> None:
    rows = [row.replace("well", "1").replace("ill", "0.0") for row in ROWS]
    write_csv(tmp_path, *rows)
    data = read_site_data(site(tmp_path, "csv", "records.csv", unit="patient"), make_plan(1))
    assert sorted([*data.train_units, *data.test_units]) == ["p1", "p1", "p2", "p3"]
    assert not set(data.train_units) & set(data.test_units)
    assert sorted([*data.train_y, *data.test_y]) == [0, 0, 1, 1]


def test_csv_reads_what_a_spreadsheet_writes(tmp_path: Path, make_plan: Make) -> None:
    path = tmp_path / "records.csv"
    path.write_bytes(b'\xef\xbb\xbf"mass","outcome",age,dose\r\n1,"well", 2 ,3\r\n\r\n')
    data = read_site_data(site(tmp_path, "csv", "records.csv"), make_plan(1))
    assert whole(data).tolist() == [[2, 3, 1, 1]]


BAD_CSV: dict[str, tuple[tuple[str, ...], str, str]] = {
    "no number": (("1,well,old,p1,2",), HEADER, 'column "age", row 2'),
    "missing": ((*ROWS, "1,well,,p1,2"), HEADER, 'column "age", row 6'),
    "nan": (("1,well,nan,p1,2", *ROWS, "1,well,inf,p1,2"), HEADER, 'column "age", rows 2, 7'),
    "beyond float32": (("1,well,1e39,p1,2",), HEADER, 'column "age", row 2'),
    "underscore": (("1,well,1_0,p1,2",), HEADER, 'column "age", row 2'),
    "no class": ((*ROWS, "1,dead,2,p1,2"), HEADER, 'column "outcome", row 6'),
    "a class beyond": (("1,1,2,p1,2", "1,2,2,p1,2"), HEADER, 'column "outcome", row 3'),
    "too few fields": (("1,well,2,p1",), HEADER, "row 2"),
    "too many fields": (("1,well,2,p1,2,3",), HEADER, "row 2"),
    "no label column": (ROWS, HEADER.replace("outcome", "outcomes"), 'column "outcome"'),
    "no feature": (ROWS, HEADER.replace("age", "alter"), 'column "age"'),
    "a column twice": (ROWS, HEADER.replace("patient", "age"), 'column "age"'),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CSV)
def test_csv_faults_are_named_by_column_and_row(tmp_path: Path, make_plan: Make, case: str) -> None:
    rows, header, where = BAD_CSV[case]
    write_csv(tmp_path, *rows, header=header)
    with pytest.raises(InvalidInput) as caught:
        read_site_data(site(tmp_path, "csv", "records.csv"), make_plan(1))
    assert where in [problem.where for problem in caught.value.problems]
    assert caught.value.exit_code == 65


def test_an_empty_unit_is_named(tmp_path: Path, make_plan: Make) -> None:
    write_csv(tmp_path, *ROWS, "1,well,2,,2")
    with pytest.raises(InvalidInput) as caught:
        read_site_data(site(tmp_path, "csv", "records.csv", unit="patient"), make_plan(1))
    assert [problem.where for problem in caught.value.problems] == ['column "patient", row 6']


@pytest.mark.parametrize(
    "raw", [b"", b"mass,outcome,age,patient,dose\n", b"\xff\xfe\x00", b'a,"b\n1,2']
)
def test_files_that_are_no_table(tmp_path: Path, make_plan: Make, raw: bytes) -> None:
    (tmp_path / "records.csv").write_bytes(raw)
    with pytest.raises(InvalidInput):
        read_site_data(site(tmp_path, "csv", "records.csv"), make_plan(1))


def test_no_message_holds_a_records_content(tmp_path: Path, make_plan: Make) -> None:
    for rows in (
        (f"{SECRET}x,well,1,p1,2",),
        (f"{SECRET},{SECRET},1,p1,2",),
        (f"{SECRET},well,1,p1",),
        (f'"{SECRET},well,1,p1',),
    ):
        write_csv(tmp_path, *rows)
        with pytest.raises(InvalidInput) as caught:
            read_site_data(site(tmp_path, "csv", "records.csv"), make_plan(1))
        assert SECRET not in caught.value.message() and caught.value.__cause__ is None


# --- npz ------------------------------------------------------------------------------------


def arrays(**changes: Any) -> dict[str, np.ndarray]:
    """Six tiny records as x and y."""
    x = np.arange(18, dtype=np.float64).reshape(6, 3)
    return {"x": x, "y": np.array([0, 1, 0, 1, 0, 1], dtype=np.uint8)} | changes


def read_npz(folder: Path, plan: Any, values: Mapping[str, Any], **options: Any) -> Any:
    np.savez(folder / "x.npz", **values)
    return read_site_data(site(folder, "npz", "x.npz", **options), plan)


def test_npz_whole(tmp_path: Path, make_plan: Make) -> None:
    data = read_npz(tmp_path, make_plan(1), arrays())
    assert whole(data)[:, :3].tolist() == arrays()["x"].tolist()
    assert data.train_units is None
    named = arrays(y=np.array(["ill", "well"] * 3))
    assert whole(read_npz(tmp_path, make_plan(1), named)).tolist() == whole(data).tolist()


def test_npz_parts_keep_their_order_and_bits(tmp_path: Path, make_plan: Make) -> None:
    """Seeded runs must be bit-identical: nothing is sorted, split or rounded."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 3)).astype(np.float32)
    y = rng.integers(0, 2, 7)
    parts = {"train_x": x[:5], "train_y": y[:5], "test_x": x[5:], "test_y": y[5:]}
    data = read_npz(tmp_path, make_plan(1), parts)
    for name, values in parts.items():
        assert getattr(data, name).tobytes() == values.tobytes()
    units = {"train_units": np.arange(5), "test_units": np.arange(5, 7)}
    again = read_npz(tmp_path, make_plan(1), parts | units, unit="patient")
    assert again.train_units.tolist() == [0, 1, 2, 3, 4]


BAD_NPZ: dict[str, dict[str, Any]] = {
    "a pickled object": arrays(x=np.array([{}] * 6, dtype=object)),
    "pickled labels": arrays(y=np.array([0] * 6, dtype=object)),
    "no labels": {"x": np.zeros((6, 3))},
    "half of the parts": {"train_x": np.zeros((6, 3)), "train_y": np.zeros(6, dtype=int)},
    "lengths": arrays(y=np.zeros(5, dtype=int)),
    "flat": arrays(x=np.zeros(6)),
    "a scalar": arrays(y=np.array(1)),
    "texts": arrays(x=np.array([["a"] * 3] * 6)),
    "complex": arrays(x=np.zeros((6, 3), dtype=complex)),
    "NaN": arrays(x=np.full((6, 3), np.nan)),
    "beyond float32": arrays(x=np.full((6, 3), 1e39)),
    "a class beyond": arrays(y=np.array([0, 1, 2, 0, 1, 2])),
    "a negative class": arrays(y=np.array([0, 1, -1, 0, 1, 0])),
    "half a class": arrays(y=np.array([0, 1, 0.5, 0, 1, 0])),
    "units of another length": arrays(unit=np.arange(5)),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_npz_faults(tmp_path: Path, make_plan: Make, case: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read_npz(tmp_path, make_plan(1), BAD_NPZ[case])
    assert caught.value.exit_code == 65


@pytest.mark.parametrize("raw", [b"", b"PK\x03\x04broken", b"\x80\x04K\x01.", b"x" * 999])
def test_bytes_that_are_no_npz(tmp_path: Path, make_plan: Make, raw: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(raw)
    with pytest.raises(InvalidInput):
        read_site_data(site(tmp_path, "npz", "x.npz"), make_plan(1))


def _deflated(folder: Path) -> bytes:
    np.savez_compressed(folder / "y.npz", **arrays(x=np.zeros((400, 3))))
    return (folder / "y.npz").read_bytes()


def _broken_stream(folder: Path) -> bytes:
    """The first array's deflate stream is noise; the directory is whole."""
    raw = bytearray(_deflated(folder))
    start = raw.index(b"x.npy") + 5 + int.from_bytes(raw[28:30], "little")
    raw[start : start + 20] = b"\xff" * 20
    return bytes(raw)


def _flagged(folder: Path) -> bytes:
    """Both headers of every member say that it is encrypted."""
    raw = bytearray(_deflated(folder))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.find(mark)
        while at >= 0:
            raw[at + place] |= 1
            at = raw.find(mark, at + 4)
    return bytes(raw)


def _method(folder: Path) -> bytes:
    """Every member names a compression that no program knows."""
    raw = bytearray(_deflated(folder))
    for mark, place in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        at = raw.find(mark)
        while at >= 0:
            raw[at + place : at + place + 2] = b"\x63\x00"
            at = raw.find(mark, at + 4)
    return bytes(raw)


@pytest.mark.parametrize("make", [_broken_stream, _flagged, _method])
def test_an_archive_that_cannot_be_unpacked(
    tmp_path: Path, make_plan: Make, make: Callable[[Path], bytes]
) -> None:
    (tmp_path / "x.npz").write_bytes(make(tmp_path))
    with pytest.raises(InvalidInput, match=r"not an \.npz file") as caught:
        read_site_data(site(tmp_path, "npz", "x.npz"), make_plan(1))
    assert caught.value.exit_code == 65


def test_units_that_are_asked_for_must_be_there(tmp_path: Path, make_plan: Make) -> None:
    with pytest.raises(InvalidInput, match="to which unit"):
        read_npz(tmp_path, make_plan(1), arrays(), unit="patient")


# --- both -----------------------------------------------------------------------------------


def test_a_missing_file_is_66(tmp_path: Path, make_plan: Make) -> None:
    with pytest.raises(MissingInput):
        read_site_data(site(tmp_path, "csv", "none.csv"), make_plan(1))


# --- the split ------------------------------------------------------------------------------


def table(count: int, seed: int = 0) -> Table:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(count, 3)).astype(np.float32)
    return Table(x=x, y=rng.integers(0, 2, count))


def parts(held: Table, **options: Any) -> tuple[set[bytes], set[bytes]]:
    data = split(held, asset="ward", **{"test_share": 0.3} | options)
    return {row.tobytes() for row in data.train_x}, {row.tobytes() for row in data.test_x}


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(30)))
def test_the_order_of_the_rows_has_no_say(order: list[int]) -> None:
    held = table(30)
    assert parts(Table(x=held.x[order], y=held.y[order])) == parts(held)


def test_no_record_has_a_say_about_another() -> None:
    """Neighbouring data sets differ in one record in one part: what the guarantee is about."""
    held = table(60)
    train, test = parts(held)
    for gone in range(60):
        kept = np.delete(np.arange(60), gone)
        fewer = parts(Table(x=held.x[kept], y=held.y[kept]))
        assert fewer == (train - {held.x[gone].tobytes()}, test - {held.x[gone].tobytes()})


def test_the_share_is_kept_on_average_and_0_keeps_all() -> None:
    train, test = parts(table(4000), test_share=0.3)
    assert abs(len(test) / 4000 - 0.3) < 5 * (0.3 * 0.7 / 4000) ** 0.5
    assert len(train) + len(test) == 4000
    assert parts(table(50), test_share=0.0)[1] == set()


def test_all_records_of_a_unit_are_in_one_part_and_another_asset_splits_otherwise() -> None:
    held = table(200)
    units = np.array([f"p{number % 40}" for number in range(200)])
    data = split(Table(x=held.x, y=held.y, units=units), asset="ward", test_share=0.3)
    assert not set(data.train_units) & set(data.test_units)
    assert len(set(data.test_units)) in range(3, 25)
    other = split(Table(x=held.x, y=held.y, units=units), asset="wing", test_share=0.3)
    assert set(other.test_units) != set(data.test_units)

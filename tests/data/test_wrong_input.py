"""Wrong files: the exact message that people see, its exit code, and never a record's value."""

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from collegium.core.errors import CollegiumError, InvalidInput
from collegium.data.readers import read_site_data

Make = Callable[..., Any]
NAMES = tuple(f"c{n}" for n in range(13))
COLUMNS = (*NAMES, "num")
SECRET = "4711.25"
ROW = ",".join([SECRET, *(str(n) for n in range(1, 13)), "1"])
HEAD = ",".join(COLUMNS)


def wide(plan_of: Make) -> Any:
    """A plan of thirteen numbers, as in the heart data."""
    return plan_of(bounds=dict.fromkeys(NAMES, (0.0, 9999.0)), classes=("0", "1"))


def _bytes(raw: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(raw) and None


def _lines(*lines: str, end: str = "\n") -> Callable[[Path], None]:
    return _bytes((end.join(lines) + end).encode())


def _folder(path: Path) -> None:
    path.mkdir()


def _pickled(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive, archive.open("x.npy", "w") as stream:
        np.lib.format.write_array(stream, np.array([{SECRET: 1}], dtype=object))


SHORT = ROW.rpartition(",")[0]
HEADERLESS: dict[str, Any] = {"columns": COLUMNS}
Case = tuple[str, dict[str, Any], Callable[[Path], Any], int, str]

CASES: dict[str, Case] = {
    "a wrong path": ("csv", {}, lambda path: None, 66,
        "there are no records at {path}. [data] path names them. Cure: correct [data] path in "
        "site.toml; it is relative to that file."),
    "an empty file": ("csv", {}, _bytes(b""), 65,
        "r.dat is empty. It has 0 bytes. Cure: export the records again."),
    "a header alone": ("csv", {}, _lines(HEAD), 65,
        "r.dat holds no record. Cure: export the records again."),
    "13 of 14 columns, with a header": ("csv", {}, _lines(HEAD.replace("c4,", ""), SHORT), 65,
        'r.dat: 1 problem in this input\n  - column "c4": is not in the header. The plan\'s '
        "features and [data] name the columns that are read; the file has 13 columns. Cure: "
        "name it in the header (or in [data] columns, for a file without one)."),
    "13 of 14 columns, without one": ("csv", HEADERLESS, _lines(ROW, SHORT, SHORT), 65,
        "r.dat (14 columns): 1 problem in this input\n  - rows 2, 3: has 13 fields where [data] "
        "columns names 14. Its values would land in other columns. Cure: export the file again, "
        "with texts in quotes, and compare [data] columns and delimiter."),
    "more and fewer fields than the header": ("csv", {},
        _lines(HEAD, SHORT, ROW + ",7", ROW, SHORT, SECRET), 65,
        "r.dat (14 columns): 3 problems in this input\n"
        + "".join(
            f"  - {rows}: has {fields} where the header names 14. Its values would land in other "
            "columns. Cure: export the file again, with texts in quotes, and compare [data] "
            "columns and delimiter.\n"
            for rows, fields in (
                ("rows 2, 5", "13 fields"), ("row 3", "15 fields"), ("row 6", "1 field"))
        ).rstrip("\n")),
    "a name that [data] columns lacks": ("csv",
        {"columns": tuple(name.replace("c4", "c44") for name in COLUMNS)}, _lines(ROW), 65,
        'r.dat: 1 problem in this input\n  - column "c4": is not among [data] columns. The plan\'s '
        "features and [data] name the columns that are read; [data] columns names 14 columns. "
        'Cure: did you mean the column "c44"?'),
    "columns of another file": ("csv", {"columns": ("num", "a", "b")}, _lines("1,2,3"), 65,
        "r.dat: 13 problems in this input\n"
        + "\n".join(
            f'  - column "c{n}": is not among [data] columns. The plan\'s features and [data] name '
            "the columns that are read; [data] columns names 3 columns. Cure: write its name "
            "there, at the column's place in the file."
            for n in range(13))),
    "text in a number column": ("csv", {}, _lines(HEAD, ROW, ROW.replace(",3,", ",three,")), 65,
        'r.dat: 1 problem in this input\n  - column "c3", row 3: is not a finite number. Records '
        "are raw numbers; a text cannot be guessed here. Cure: correct it; if it marks a missing "
        "value, list it in [data] missing; if it is a category, the plan must list it in "
        "[model.categories]."),
    "a question mark": ("csv", HEADERLESS, _lines(*[ROW.replace(",11,", ",?,")] * 12), 65,
        'r.dat: 1 problem in this input\n  - column "c11", rows 1, 2, 3, 4, 5, 6, 7, 8 and 4 more: '
        "is not a finite number. Records are raw numbers; a text cannot be guessed here. Cure: "
        "correct it; if it marks a missing value, list it in [data] missing; if it is a category, "
        "the plan must list it in [model.categories]."),
    "a question mark that is named": ("csv", HEADERLESS | {"missing": ("?",)},
        _lines(ROW.replace(",11,", ",?,")), 65,
        'r.dat: 1 problem in this input\n  - column "c11", row 1: is missing. A missing value '
        "cannot be guessed here. Cure: fill it by a rule that you can defend, or write [data] "
        'incomplete = "drop" (or "keep", where the plan says what a missing value means).'),
    "NUL bytes": ("csv", {}, _bytes(f"{HEAD}\n{ROW}\0\n".encode()), 65,
        "r.dat holds NUL bytes. It is no text in the encoding that [data] encoding names. Cure: "
        'export it again as text, or name its encoding, like encoding = "utf-16".'),
    "another encoding": ("csv", {}, _bytes(f"{HEAD}\n{ROW}\n\xe4".encode("latin-1")), 65,
        "r.dat is not text in the encoding that [data] encoding names. Some bytes stand for no "
        'letter in it. Cure: export it again in UTF-8, or name its encoding, like encoding = '
        '"latin-1".'),
    "an open quote": ("csv", {}, _lines(HEAD, f'"{ROW}'), 65,
        "r.dat is not a table of text. A quote is not closed, or a field is too long. Cure: export "
        "it again, or compare [data] delimiter."),
    "a folder": ("csv", {}, _folder, 65,
        "{path} is a folder. This reader reads one file. Cure: write the file's name behind it, "
        "or name another reader."),
    "an empty folder": ("images", {}, _folder, 65,
        "r.dat holds no folder. Without a table labels.csv each folder in it is a class. Cure: "
        "make one folder per class, or write labels.csv."),
    "a pickle": ("npz", {}, _bytes(pickle.dumps({SECRET: 1})), 65,
        "r.dat is not an .npz file of plain arrays. It is damaged, or holds objects that would "
        "have to be unpickled. Cure: save plain arrays of numbers and texts with numpy.savez, "
        "without a password."),
    "a pickled array": ("npz", {}, _pickled, 65,
        "r.dat is not an .npz file of plain arrays. It is damaged, or holds objects that would "
        "have to be unpickled. Cure: save plain arrays of numbers and texts with numpy.savez, "
        "without a password."),
    "no Parquet": ("parquet", {}, _lines(HEAD, ROW), 65,
        "r.dat is not a Parquet file. It is damaged, encrypted, or of another format. Cure: write "
        "it again, or export the records as csv."),
    "no database": ("sql", {"query": "SELECT * FROM visits"}, _lines(HEAD, ROW), 65,
        "the query failed. DatabaseError; its words are not shown. Cure: try the query with the "
        "database's own program; a URL with a password belongs into an environment variable: path "
        '= "$NAME".'),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_people_see(tmp_path: Path, make_site: Make, plan_of: Make, case: str) -> None:
    reader, options, make, code, message = CASES[case]
    plan = wide(plan_of)
    if reader == "images":
        plan = plan_of(bounds={}, image=(4, 4, 1))
    make(tmp_path / "r.dat")
    site = make_site(tmp_path, reader, "r.dat", **{"label": "num"} | options)
    with pytest.raises(CollegiumError) as caught:
        read_site_data(site, plan)
    assert caught.value.message() == message.replace("{path}", str(tmp_path / "r.dat"))
    assert caught.value.exit_code == code
    assert SECRET not in caught.value.message() and caught.value.__cause__ is None


def test_a_header_among_the_records(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    _lines(HEAD, ROW, HEAD, ROW)(tmp_path / "r.csv")
    with pytest.raises(InvalidInput) as caught:
        read_site_data(make_site(tmp_path, "csv", "r.csv", label="num"), wide(plan_of))
    first = caught.value.problems[0]
    assert (first.where, first.what) == ('column "c0", row 3', "repeats the name of the column")


def test_windows_line_ends_a_byte_order_mark_and_quotes_are_read(
    tmp_path: Path, make_site: Make, plan_of: Make
) -> None:
    _lines(HEAD, ROW)(tmp_path / "a.csv")
    quoted = ROW.replace(SECRET, f'"{SECRET}"')
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + f"{HEAD}\r\n{quoted}\r\n".encode())
    found = [
        read_site_data(make_site(tmp_path, "csv", name, label="num", test_share=0.0), wide(plan_of))
        for name in ("a.csv", "b.csv")
    ]
    assert np.array_equal(found[0].train_x, found[1].train_x) and found[0].train_y.tolist() == [1]


def test_a_corrupt_picture(tmp_path: Path, make_site: Make, plan_of: Make) -> None:
    folder = tmp_path / "x" / "ill"
    folder.mkdir(parents=True)
    Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(folder / "scan.png")
    (folder / "scan.png").write_bytes((folder / "scan.png").read_bytes()[:60])
    with pytest.raises(InvalidInput) as caught:
        read_site_data(make_site(tmp_path, "images", "x"), plan_of(bounds={}, image=(4, 4, 1)))
    assert caught.value.message() == (
        'x: 1 problem in this input\n  - "scan.png" (file 1 of 1 in sorted order): 1 of 1 files '
        "cannot be read: it is damaged. Every record must be whole before training begins. Cure: "
        "export those files again, or leave them out."
    )


@pytest.mark.parametrize("name", ["r.csv", "$WARD/r.csv"])
def test_no_right_to_read(
    tmp_path: Path, make_site: Make, plan_of: Make, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("WARD", str(tmp_path))
    _lines(HEAD, ROW)(tmp_path / "r.csv")
    (tmp_path / "r.csv").chmod(0)
    site, plan, user = make_site(tmp_path, "csv", name, label="num"), wide(plan_of), os.geteuid()
    try:
        if user == 0:  # root may read everything
            os.seteuid(65_534)
        with pytest.raises(CollegiumError) as caught:
            read_site_data(site, plan)
    finally:
        os.seteuid(user)
    assert caught.value.exit_code == 66
    assert "cannot be read. Permission denied." in caught.value.message()


def test_a_variable_that_is_not_set(
    tmp_path: Path, make_site: Make, plan_of: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLLEGIUM_DATA", raising=False)
    with pytest.raises(CollegiumError) as caught:
        read_site_data(make_site(tmp_path, "csv", "$COLLEGIUM_DATA/r.csv"), wide(plan_of))
    assert caught.value.exit_code == 66
    assert caught.value.message() == (
        "the environment variable COLLEGIUM_DATA is not set. [data] path is "
        "$COLLEGIUM_DATA/r.csv. Cure: export COLLEGIUM_DATA=FOLDER, where the records are, or "
        "write the path itself."
    )


@pytest.mark.parametrize("encoding", ["no-such", "hex", "x\0y"])
def test_an_encoding_that_is_none(
    tmp_path: Path, make_site: Make, plan_of: Make, encoding: str
) -> None:
    _lines(HEAD, ROW)(tmp_path / "r.csv")
    with pytest.raises(InvalidInput, match="encoding is not known"):
        read_site_data(make_site(tmp_path, "csv", "r.csv", encoding=encoding), wide(plan_of))

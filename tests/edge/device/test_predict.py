"""Records of every kind, from files, folders, standard input and Python, and what is refused."""

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from collegium.edge import device
from collegium.edge.device import DeviceError
from collegium.edge.device.hashed_words import hashed_words

IMAGE = {"schema": 1, "kind": "image", "dtype": "uint8", "shape": [4, 5, 3]}
GREY = {"schema": 1, "kind": "image", "dtype": "float32", "shape": [4, 5, 1]}
TABLE = {
    "schema": 1, "kind": "table", "dtype": "float32", "shape": [3],
    "columns": [{"name": "age", "low": 0, "high": 99}, {"name": "dose", "low": 0, "high": 9},
                {"name": "sex", "categories": ["f", "m"]}],
    "missing": "mean", "unknown": "refuse",
}  # fmt: skip
TEXT = {
    "schema": 1, "kind": "text", "dtype": "int32", "shape": [6],
    "tokenizer": {"kind": "hashed", "buckets": 64, "tokens": 6, "bigrams": False},
}  # fmt: skip
TEXTS = ("call me now", "WIN 100 pounds!", "à bientôt")


def hashed(texts: Any) -> np.ndarray:
    return hashed_words(texts, buckets=64, tokens=6, bigrams=False)


def run(bundle: Any, *words: str, capsys: Any = None) -> tuple[int, dict[str, Any]]:
    given = ["predict", str(bundle.folder), *words, "--key", str(bundle.pems[0]), "--json"]
    code = device.main(given)
    return code, json.loads(capsys.readouterr().out) if capsys else {}


def pictures(folder: Path, count: int = 3) -> np.ndarray:
    folder.mkdir()
    x = np.random.default_rng(0).integers(0, 256, (count, 4, 5, 3)).astype(np.uint8)
    for number, pixels in enumerate(x):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return x


def test_images_from_files_folders_arrays_and_stdin(
    make: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = pictures(tmp_path / "scans")
    (tmp_path / "scans" / "notes.txt").write_text("passed over")
    bundle = make(IMAGE, x)
    labels, chances = bundle.check().predict(x)
    code, answer = run(bundle, str(tmp_path / "scans"), capsys=capsys)
    assert (code, answer["labels"]) == (0, labels)
    assert answer["records"] == ["0.png", "1.png", "2.png"]
    np.testing.assert_allclose(answer["probabilities"], chances, atol=1e-6)
    np.save(tmp_path / "x.npy", x)
    one = str(tmp_path / "scans" / "1.png")
    code, answer = run(bundle, one, str(tmp_path / "x.npy"), capsys=capsys)
    assert answer["labels"] == [labels[1], *labels]
    assert answer["records"] == ["1.png", "x.npy:1", "x.npy:2", "x.npy:3"]
    stdin = io.TextIOWrapper(io.BytesIO(Path(one).read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    code, answer = run(bundle, "-", capsys=capsys)
    assert answer["labels"] == labels[1:2] and answer["records"] == ["standard input"]


def test_greys_may_leave_their_channel_out(make: Any) -> None:
    x = np.arange(40, dtype=np.uint8).reshape(2, 4, 5)
    verified = make(GREY, x[..., None]).check()
    for given in (x, x[..., None]):
        assert verified.predict(given)[0] == verified.predict(x[..., None].astype(float))[0]
    assert verified.predict(x[0])[0] == verified.predict(x)[0][:1]


def test_tables_from_csv_npy_and_python(make: Any, tmp_path: Path, capsys: Any) -> None:
    x = np.array([[50, 1.5, 0], [np.nan, 2, 1]], dtype=np.float32)
    bundle = make(TABLE, x)
    labels, _ = bundle.check().predict(x)
    (tmp_path / "rows.csv").write_text("id;sex;dose;age\n7;f;1.5;50\n8;m;2;NA\n")
    flags = ["--delimiter", "semicolon", "--missing", "NA"]
    code, answer = run(bundle, str(tmp_path / "rows.csv"), *flags, capsys=capsys)
    assert (code, answer["labels"]) == (0, labels)
    assert answer["records"] == ["rows.csv:2", "rows.csv:3"]
    assert "1 columns are not the model's" in answer["notes"][0]
    np.save(tmp_path / "x.npy", x)
    code, answer = run(bundle, str(tmp_path / "x.npy"), capsys=capsys)
    assert answer["labels"] == labels
    rows = [{"age": 50, "dose": 1.5, "sex": "f"}, {"age": None, "dose": 2, "sex": "m"}]
    assert bundle.check().predict(rows)[0] == labels


@pytest.mark.parametrize(
    "x", [[[1, np.inf, 0]], [[1, 1, 2]], [[1, 1, -1.5]], [[1, 1, 0.5]], [[1, 1, np.nan]]]
)
def test_numbers_that_no_row_has(make: Any, x: Any) -> None:
    verified = make(TABLE, np.ones((1, 3), np.float32)).check()
    with pytest.raises(DeviceError, match="BAD INPUT"):
        verified.predict(np.array(x))
    strict = make({**TABLE, "missing": "refuse"}, np.ones((1, 3), np.float32)).check()
    for given in ([[np.nan, 1, 0]], [[1, 1, -1]]):
        with pytest.raises(DeviceError, match="BAD INPUT"):
            strict.predict(np.array(given))


def test_texts_from_lines_flags_arrays_and_python(
    make: Any, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = make(TEXT, hashed(TEXTS), texts=TEXTS)
    labels, _ = bundle.check().predict(list(TEXTS))
    (tmp_path / "sms.txt").write_bytes("\ufeff{}\r\n\r\n{}\n{}".format(*TEXTS).encode())
    code, answer = run(bundle, str(tmp_path / "sms.txt"), capsys=capsys)
    assert (code, answer["labels"]) == (0, labels)
    assert answer["records"] == ["sms.txt:1", "sms.txt:3", "sms.txt:4"]
    code, answer = run(bundle, "--text", TEXTS[0], "--text", TEXTS[1], capsys=capsys)
    assert answer["labels"] == labels[:2] and answer["records"] == ["text 1", "text 2"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXTS[2].encode())))
    assert run(bundle, "-", capsys=capsys)[1]["labels"] == labels[2:]
    np.save(tmp_path / "x.npy", hashed(TEXTS))
    assert run(bundle, str(tmp_path / "x.npy"), capsys=capsys)[1]["labels"] == labels


def test_a_tokenizer_that_reads_otherwise_fails_the_self_test(make: Any) -> None:
    other = make(TEXT, hashed(TEXTS), texts=[*TEXTS[:2], "another text"])
    with pytest.raises(DeviceError, match="SELFTEST: the texts give other tokens"):
        other.check()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("x.csv", b"1,2,3\n", "row 1: has 3 fields, not 6"),
        ("x.csv", b"a,b\nc,d\n", "row 2"),
        ("x.csv", b"", "no record"),
        ("x.csv", b"1,2,3,4,5,1e39\n", "row 1, field 6"),
        ("x.csv", b"\xff\xfe\x00", "neither text"),
        ("x.npy", b"\x93NUMPY no array", "no .npy"),
        ("x.npz", b"PK\x03\x04 no archive", "no .npz"),
        ("x.png", b"\x89PNG\r\n\x1a\n", "neither text"),
    ],
)
def test_bad_files_are_exit_65_and_named(
    make: Any, tmp_path: Path, capsys: Any, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    code, answer = run(make(), str(tmp_path / name), capsys=capsys)
    assert (code, answer["code"], answer["ok"]) == (65, "BAD INPUT", False)
    assert name in answer["reason"] and told in answer["reason"]


def test_wrong_shapes_and_kinds_are_exit_65(make: Any) -> None:
    verified = make().check()
    wrong: list[Any] = [
        np.zeros((1, 9, 9)), np.zeros(6), np.zeros((0, 2, 3)), np.full((1, 2, 3), np.nan),
        np.array([["a"] * 3] * 2), np.zeros((2, 3), complex), [], ["a text"], [{"a": 1}],
    ]  # fmt: skip
    for x in wrong:
        with pytest.raises(DeviceError) as caught:
            verified.predict(x)
        assert caught.value.exit_code == 65
    image = make(IMAGE, np.zeros((1, 4, 5, 3), np.uint8)).check()
    for pixels in (-1, 256, 0.5):
        with pytest.raises(DeviceError, match="BAD INPUT"):
            image.predict(np.full((4, 5, 3), pixels, dtype=float))


def test_many_records_go_through_in_parts(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = make()
    verified = bundle.check()
    x = np.random.default_rng(1).normal(size=(1000, 2, 3)).astype(np.float32)
    assert verified.at_once == 256
    labels, chances = verified.predict(x)
    single = [verified.predict(record)[0][0] for record in x[:20]]
    assert labels[:20] == single and chances.shape == (1000, 3)


def test_a_dynamic_recipe_answers_records_one_by_one(make: Any) -> None:
    """Its scale is that of all that goes through together: others must not change an answer."""
    assert make(terms={"gate": {"recipe": "int8-dynamic"}}).check().at_once == 1


def test_exit_codes_and_words(make: Any, tmp_path: Path, capsys: Any) -> None:
    bundle = make(terms={"simulated": True}, keys=2)
    folder, pems = str(bundle.folder), [str(pem) for pem in bundle.pems]
    key = ["--key", pems[0]]
    (tmp_path / "rubbish.pem").write_text("no key")
    np.save(tmp_path / "x.npy", np.zeros((2, 3)))
    cases = [
        (["verify", folder, *key], 77),
        (["verify", folder, *key, "--allow-simulated"], 0),
        (["verify", folder, *key, "--key", pems[1], "--threshold", "2", "--allow-simulated"], 0),
        (["verify", folder, *key, "--threshold", "2", "--allow-simulated"], 64),
        (["verify", folder, *key, "--threshold", "0", "--allow-simulated"], 64),
        (["verify", folder, "--allow-simulated"], 64),
        (["verify", folder, *key, "--revoked", "nonsense"], 66),
        (["verify", str(tmp_path / "none"), *key], 66),
        (["verify", folder, "--key", str(tmp_path / "none")], 66),
        (["verify", folder, "--key", str(tmp_path / "rubbish.pem")], 65),
        (["predict", folder, *key, "--allow-simulated"], 64),
        (["predict", folder, str(tmp_path / "none.npy"), *key, "--allow-simulated"], 66),
        (["predict", folder, str(tmp_path / "x.npy"), *key, "--allow-simulated"], 0),
        (["predict", folder, "--text", "a", *key, "--allow-simulated"], 65),
    ]
    for words, code in cases:
        assert device.main(words) == code, words
        heard = capsys.readouterr()
        assert bool(heard.out) == (code == 0) and bool(heard.err) == (code != 0)
    device.main(["verify", folder, *key, "--allow-simulated"])
    assert "simulated: no privacy guarantee" in capsys.readouterr().out
    for words in ([], ["fly"], ["verify"], ["verify", folder, "--no", *key]):
        with pytest.raises(SystemExit) as caught:
            device.main(words)
        assert caught.value.code == 64


def test_the_example_of_the_docs(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The five lines in the package's docstring run as they stand."""
    bundle = make(terms={"simulated": True})
    bundle.folder.rename(tmp_path / "bundle")
    bundle.pems[0].rename(tmp_path / "bundle.pub")
    monkeypatch.chdir(tmp_path)
    lines = [line[4:] for line in (device.__doc__ or "").splitlines() if line.startswith("    ")]
    found: dict[str, Any] = {"records": np.ones((2, 2, 3))}
    exec("\n".join(lines).replace("allow_simulated", "now=NOW, allow_simulated"),
         found | {"NOW": None}, found)  # fmt: skip
    assert len(found["labels"]) == 2 and found["probabilities"].shape == (2, 3)

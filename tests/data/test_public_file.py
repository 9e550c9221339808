"""A transfer file needs no labels, and may hold texts; everything else is refused by name."""

from pathlib import Path

import numpy as np
import pytest

from collegium.core.errors import InvalidInput, MissingInput, Refused
from collegium.data.public import PublicSet
from collegium.data.public_file import load_public

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 0, 1])


def save(path: Path, **arrays: object) -> Path:
    given = {"x": X, "name": np.array("scans"), "origin": np.array("public"), **arrays}
    np.savez(path, **given)  # type: ignore[arg-type]
    return path


def test_labels_are_not_needed_and_not_read(tmp_path: Path) -> None:
    without = load_public(save(tmp_path / "a.npz"), labels=False)
    labelled = load_public(save(tmp_path / "b.npz", y=Y), labels=False)
    odd = load_public(save(tmp_path / "c.npz", y=np.array(["a", "b"])), labels=False)
    assert without.y is None and labelled.y is None and odd.y is None
    assert without.digest == labelled.digest == PublicSet(name="", origin="public", x=X).digest
    with pytest.raises(InvalidInput, match="lacks y"):
        load_public(save(tmp_path / "a.npz"))


def test_texts(tmp_path: Path) -> None:
    texts = np.array(["one", "another one"])
    found = load_public(save(tmp_path / "t.npz", x=texts), labels=False)
    assert found.x.tolist() == texts.tolist() and len(found) == 2
    assert found.digest != load_public(save(tmp_path / "u.npz"), labels=False).digest
    with pytest.raises(InvalidInput):
        load_public(save(tmp_path / "t.npz", x=texts, y=np.array([0, 1])))


@pytest.mark.parametrize(
    "x", [np.array(3.0), np.arange(4.0), np.array([["a"], ["b"]]), np.array([b"a", b"b"])]
)
def test_no_records(x: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="neither numbers"):
        load_public(save(tmp_path / "x.npz", x=x), labels=False)


def test_private_records_are_refused_here_too(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="public, synthetic or already released"):
        load_public(save(tmp_path / "p.npz", origin=np.array("private")), labels=False)
    with pytest.raises(MissingInput):
        load_public(tmp_path / "none.npz", labels=False)

"""public.npz: only labelled records whose origin is told and releasable."""

from pathlib import Path

import numpy as np
import pytest

from collegium.core.errors import InvalidInput, MissingInput, Refused
from collegium.data.public import PublicSet
from collegium.data.public_file import load_public
from collegium.server.public_file import read_public, write_public

X = np.arange(12, dtype=np.float32).reshape(4, 3)
Y = np.array([0, 1, 0, 1])


def save(path: Path, **changes: object) -> Path:
    arrays = {"x": X, "y": Y, "name": np.array("n"), "origin": np.array("public"), **changes}
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})  # type: ignore[arg-type]
    return path


def test_a_set_survives_the_round_trip(tmp_path: Path) -> None:
    assert read_public(tmp_path) is None
    write_public(tmp_path, PublicSet(name="digits/test", origin="synthetic", x=X, y=Y))
    found = read_public(tmp_path)
    assert found is not None and found.y is not None
    assert (found.name, found.origin) == ("digits/test", "synthetic")
    assert found.x.tobytes() == X.tobytes() and found.y.tolist() == Y.tolist()


def test_private_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="private"):
        load_public(save(tmp_path / "p.npz", origin=np.array("private")))


@pytest.mark.parametrize(
    "changes",
    [
        {"x": None},
        {"y": None},
        {"origin": None},
        {"origin": np.array("ours")},
        {"y": np.array([0.5, 1.0, 0.0, 1.0])},
        {"y": np.array([0, 1])},
        {"x": np.array([{"a": 1}] * 4, dtype=object)},
    ],
)
def test_anything_else_is_not_a_public_set(changes: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        load_public(save(tmp_path / "p.npz", **changes))


def test_other_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        load_public(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InvalidInput):
        load_public(tmp_path / "text.npz")
    with pytest.raises(InvalidInput, match="no labels"):
        write_public(tmp_path, PublicSet(name="n", origin="public", x=X))

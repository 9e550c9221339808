"""The app bundle: settings alone, the same bytes everywhere."""

import io
import zipfile

from collegium.server._flwr_app import COMPONENT, build_app


def test_it_holds_no_code() -> None:
    with zipfile.ZipFile(io.BytesIO(build_app())) as bundle:
        names = set(bundle.namelist())
        text = bundle.read("pyproject.toml").decode()
    assert names == {"pyproject.toml", "README.md", "LICENSE", ".info/CONTENT"}
    assert COMPONENT in text and "dependencies = []" in text


def test_two_builds_are_the_same_bytes() -> None:
    assert build_app() == build_app()

"""The app bundle: settings alone, the same bytes everywhere."""

import io
import zipfile
from hashlib import sha256

from collegium.server._flwr_app import COMPONENT, build_app


def test_it_holds_no_code() -> None:
    with zipfile.ZipFile(io.BytesIO(build_app())) as bundle:
        names = set(bundle.namelist())
        text = bundle.read("pyproject.toml").decode()
    assert names == {"pyproject.toml", "README.md", "LICENSE", ".info/CONTENT"}
    assert COMPONENT in text and "dependencies = []" in text


def test_its_bytes_are_pinned() -> None:
    """Rosters of this version hold this digest: a change needs new signatures."""
    assert build_app() == build_app()
    assert sha256(build_app()).hexdigest() == PINNED


PINNED = "c9dc687642bf89fc8f1660305c9b2555397c2323d0b29d80788aa0a80d287dbf"

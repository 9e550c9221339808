"""A publisher, a publication, a web server that may misbehave, and a device's home."""

import base64
import functools
import http.server
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from collegium.core.digest import canonical_bytes
from collegium.core.signing import fingerprint, generate_key, make_envelope
from collegium.edge.bundle import Terms, json_bytes, npz_bytes, write_bundle
from collegium.edge.device import Home, make_home
from collegium.edge.device.fetch_web import Patience
from collegium.edge.device.pull import Pulling
from collegium.edge.device.store import Settings, State, Store
from collegium.edge.publication import add

HASTE = Patience(timeout_s=2.0, attempts=2, pause_s=0.01)
FORM = {"schema": 1, "kind": "array", "dtype": "float32", "shape": [2]}


def tiny_model(scale: float) -> bytes:
    """A graph of one product, (n, 2) to (n, 2); ``scale`` makes files differ."""
    weights = numpy_helper.from_array(np.eye(2, dtype=np.float32) * np.float32(scale), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model.SerializeToString()


def tiny_files(version: int) -> dict[str, bytes]:
    x = np.array([[1, 0], [0, 1], [2, 1]], dtype=np.float32)
    return {
        "model.onnx": tiny_model(float(version)),
        "input.json": json_bytes(FORM),
        "labels.json": json_bytes({"classes": [f"v{version}-left", f"v{version}-right"]}),
        "selftest.npz": npz_bytes(x=x, logits=x * version, labels=np.array([0, 1, 0])),
        "card.md": b"# the same in every version\n",
        "weights.bin": np.random.default_rng(version).bytes(300_000),
    }


@dataclass
class Field:
    """The publisher's side and one device; versions are told from their labels."""

    folder: Path
    key: Ed25519PrivateKey = field(default_factory=generate_key)

    def __post_init__(self) -> None:
        self.publication, self.path = self.folder / "public", self.folder / "home"
        self.store = Store(self.path)

    def bundle(self, version: int, **terms: Any) -> Path:
        """Write a bundle; ``keys`` sign it, ``files`` replace some of its files."""
        keys, files = terms.pop("keys", [self.key]), terms.pop("files", {})
        out = self.folder / terms.pop("out", f"bundle-{version}")
        whole = {
            "name": "pilot",
            "version": version,
            "created": datetime.now(UTC),
            "simulated": False,
            "opset": 20,
            "lineage": {},
            "gate": {},
            "selftest_min_agreement": 1.0,
        }
        write_bundle(out, tiny_files(version) | files, Terms(**(whole | terms)), keys)
        return out

    def publish(self, version: int, **terms: Any) -> Path:
        return add(self.publication, self.bundle(version, **terms), [self.key])

    def home(self, url: str | Path | None = None, **settings: Any) -> Home:
        given = Settings(
            url=str(url or self.publication), keys=(fingerprint(self.key.public_key()),)
        )
        make_home(self.path, replace(given, **settings))
        return Home(self.path)

    @property
    def state(self) -> State:
        return self.store.state()

    def runs(self, home: Home, **options: Any) -> int:
        """Return the version that answers, by its answer."""
        labels, _ = home.load(**options).predict(np.array([[3, 1]], dtype=np.float32))
        return int(labels[0].removeprefix("v").removesuffix("-left"))

    def leftovers(self) -> set[str]:
        """Return what lies in the home beside what its state names."""
        named = {each.folder for each in (self.state.current, self.state.previous) if each}
        found = {entry.name for entry in self.store.bundles.iterdir()} - named
        return found | {entry.name for entry in self.store.incoming.iterdir()}


@pytest.fixture
def field_(tmp_path: Path) -> Field:
    return Field(tmp_path)


@pytest.fixture
def hasty() -> Pulling:
    """A pull that waits for nothing."""
    return Pulling(patience=HASTE)


class Manners:
    """How the server behaves: set by a test, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.ranges = True  # whether it knows Range
        self.cut: dict[str, int] = {}  # bytes after which the next answer for a file breaks off
        self.extra: dict[str, bytes] = {}  # sent after a file, and counted in its length
        self.status: dict[str, list[int]] = {}  # what it answers instead, one after the other
        self.redirect: dict[str, str] = {}
        self.replace: dict[str, bytes] = {}
        self.shift = 0  # bytes by which a part begins elsewhere than asked


class Handler(http.server.SimpleHTTPRequestHandler):
    """A static server with Range, and with whatever ``manners`` make of it."""

    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, manners: Manners, **kwargs: Any) -> None:
        self.manners = manners
        super().__init__(*args, **kwargs)

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        manners, name = self.manners, self.path.rpartition("/")[2]
        manners.asked.append((name, self.headers.get("Range", "")))
        if name in manners.redirect:
            return self._head(302, {"Location": manners.redirect[name], "Content-Length": "0"})
        if manners.status.get(name):
            return self._head(manners.status[name].pop(0), {"Content-Length": "0"})
        file = Path(self.translate_path(self.path))
        if not file.is_file():
            return self._head(404, {"Content-Length": "0"})
        whole = manners.replace.get(name, file.read_bytes()) + manners.extra.get(name, b"")
        return self._send(name, whole)

    def _send(self, name: str, whole: bytes) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) + self.manners.shift if asked and self.manners.ranges else 0
        if start >= len(whole) and start:
            return self._head(416, {"Content-Length": "0"})
        part = whole[start:]
        headers = {"Content-Length": str(len(part))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
        self._head(206 if start else 200, headers)
        cut = self.manners.cut.pop(name, None)
        self.wfile.write(part if cut is None else part[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True
        return None

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@dataclass
class Web:
    """A web server on this machine."""

    url: str
    manners: Manners


@pytest.fixture
def web(field_: Field) -> Iterator[Web]:
    """Serve the publication's folder over loopback HTTP."""
    manners = Manners()
    field_.publication.mkdir()
    handler = functools.partial(Handler, directory=str(field_.publication), manners=manners)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield Web(f"http://127.0.0.1:{server.server_port}", manners)
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def rewrite() -> Any:
    """Change the predicate of an index and sign it as given."""

    def change(path: Path, keys: list[Ed25519PrivateKey], **values: Any) -> None:
        statement = json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))
        statement["predicate"] |= values
        path.write_bytes(make_envelope(canonical_bytes(statement), keys))

    return change

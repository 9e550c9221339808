"""Publications in every state, and homes that are about to go from one to the next."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from collegium.core.signing import fingerprint, generate_key
from collegium.edge.bundle import Terms, json_bytes, npz_bytes, write_bundle
from collegium.edge.device import Home, make_home
from collegium.edge.device.store import Settings, Store, settings_text
from collegium.edge.publication import add, withdraw

Triple = tuple[int | None, int | None, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A home as ``start``, a publication, a verb, and (current, previous, floor) around it.

    ``refusal`` is how the home may refuse to predict until the verb is through.
    """

    name: str
    start: str
    publication: str
    verb: str
    before: Triple
    after: Triple
    refusal: str = ""


CASES = (
    Case(name="first", start="empty", publication="p2", verb="pull", before=(None, None, 0),
         after=(2, None, 2)),
    Case(name="update", start="at1", publication="p2", verb="pull", before=(1, None, 1),
         after=(2, 1, 2)),
    Case(name="leap", start="at2", publication="p4", verb="pull", before=(2, 1, 2),
         after=(4, 2, 4)),
    Case(name="withdrawn", start="at2", publication="w2", verb="pull", before=(2, 1, 2),
         after=(1, None, 2), refusal="WITHDRAWN"),
    Case(name="damaged", start="bad2", publication="p2", verb="pull", before=(2, 1, 2),
         after=(2, 1, 2), refusal="HASH"),
    Case(name="rollback", start="at2", publication="p2", verb="rollback", before=(2, 1, 2),
         after=(1, None, 2)),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """The folder that ``make_world`` filled, served at ``address``."""

    folder: Path
    address: str

    def fresh(self, case: Case) -> Path:
        """Return a new home that is about to do what the case does."""
        home = Path(tempfile.mkdtemp(prefix="home-", dir=self.folder)) / "home"
        shutil.copytree(self.folder / "homes" / case.start, home)
        table = json.loads((self.folder / "settings.json").read_text())
        settings = Settings(**(table | {"keys": tuple(table["keys"]), "revoked": ()}))
        text = settings_text(replace(settings, url=f"{self.address}/{case.publication}"))
        (home / "device.toml").write_text(text)
        return home

    def answer(self, home: Home) -> int:
        """Return the version that answers, by its answer."""
        labels, _ = home.load().predict(np.array([[3, 1]], dtype=np.float32))
        return int(labels[0])


def make_world(folder: Path) -> None:
    """Fill ``folder``: publications p1 .. p4 and w2 (2 withdrawn), homes at 1, at 2, damaged."""
    key = generate_key()
    site = folder / "site"
    settings = Settings(url=str(site), keys=(fingerprint(key.public_key()),))
    (folder / "settings.json").write_text(json.dumps(asdict(settings)))
    home = folder / "homes" / "work"
    make_home(home, settings)
    shutil.copytree(home, folder / "homes" / "empty")
    for version in range(1, 5):
        add(site, _bundle(folder, version, key), [key])
        shutil.copytree(site, folder / f"p{version}")
        if version < 3:
            Home(home).pull()
            shutil.copytree(home, folder / "homes" / f"at{version}")
    shutil.copytree(folder / "p2", folder / "w2")
    withdraw(folder / "w2", 2, "wrong", [key])
    shutil.copytree(folder / "homes" / "at2", folder / "homes" / "bad2")
    bad = Store(folder / "homes" / "bad2")
    current = bad.state().current
    if current is None:
        raise RuntimeError("the home has no bundle")
    (bad.bundles / current.folder / "weights.bin").write_bytes(b"damaged")


def _bundle(folder: Path, version: int, key: object) -> Path:
    x = np.array([[1, 0], [0, 1]], dtype=np.float32)
    files = {
        "model.onnx": _model(version),
        "input.json": json_bytes({"schema": 1, "kind": "array", "dtype": "float32", "shape": [2]}),
        "labels.json": json_bytes({"classes": [str(version), "other"]}),
        "selftest.npz": npz_bytes(x=x, logits=x * version, labels=np.array([0, 1])),
        "card.md": b"# the same in every version\n",
        "weights.bin": np.random.default_rng(version).bytes(400_000),
    }
    terms = Terms(
        name="pilot", version=version, created=datetime.now(UTC), simulated=False, opset=20,
        lineage={}, gate={}, selftest_min_agreement=1.0,
    )  # fmt: skip
    out = folder / f"bundle-{version}"
    write_bundle(out, files, terms, [key])
    return out


def _model(version: int) -> bytes:
    """Return a graph of one product, (n, 2) to (n, 2)."""
    weights = numpy_helper.from_array(np.eye(2, dtype=np.float32) * np.float32(version), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model.SerializeToString()

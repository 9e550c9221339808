"""Small signed bundles of every kind, made by hand: a linear graph, the files, the signature."""

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from onnx import TensorProto, helper, numpy_helper

from collegium.core.digest import canonical_bytes
from collegium.core.signing import generate_key, make_envelope, save_public
from collegium.edge.bundle import npz_bytes
from collegium.edge.device import PREDICATE_TYPE, STATEMENT_TYPE, Verified, verify_bundle
from collegium.edge.device.session import infer, open_session

NOW = datetime(2026, 11, 22, tzinfo=UTC)
ONNX_TYPES = {"float32": TensorProto.FLOAT, "uint8": TensorProto.UINT8, "int32": TensorProto.INT32}
CLASSES = ("a", "b", "c")
ARRAY = {"schema": 1, "kind": "array", "dtype": "float32", "shape": [2, 3]}


def linear(dtype: str, shape: Sequence[int], classes: int = 3) -> bytes:
    """A graph that flattens raw records, takes NaN for 0, and multiplies by seeded weights."""
    size = int(np.prod(shape))
    weights = np.random.default_rng(size).normal(size=(size, classes)).astype(np.float32)
    constants = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.float32(0), "zero"),
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("IsNaN", ["f"], ["gaps"]),
        helper.make_node("Where", ["gaps", "zero", "f"], ["filled"]),
        helper.make_node("Flatten", ["filled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("x", ONNX_TYPES[dtype], ["n", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return model.SerializeToString()


@dataclass
class Bundle:
    """A signed folder, and the keys that signed it."""

    folder: Path
    keys: list[Ed25519PrivateKey]
    pems: list[Path]
    statement: dict[str, Any] = field(default_factory=dict)

    def check(self, **options: Any) -> Verified:
        trusted = [key.public_key() for key in self.keys]
        return verify_bundle(self.folder, trusted, **({"now": NOW} | options))

    def sign(self, keys: Sequence[Ed25519PrivateKey] | None = None) -> None:
        envelope = make_envelope(canonical_bytes(self.statement), keys or self.keys)
        (self.folder / "bundle.sig").write_bytes(envelope)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file and sign it, so that all but its meaning is right."""
        (self.folder / name).write_bytes(content)
        about = {"name": name, "digest": {"sha256": hashlib.sha256(content).hexdigest()}}
        others = [s for s in self.statement["subject"] if s["name"] != name]
        self.statement["subject"] = [*others, about]
        self.statement["predicate"].get("sizes", {})[name] = len(content)
        self.sign()

    def payload(self) -> bytes:
        outer = json.loads((self.folder / "bundle.sig").read_bytes())
        return base64.b64decode(outer["payload"])


Make = Callable[..., Bundle]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return what writes a bundle for a form, with ``x`` as the questions of its self-test."""

    def bundle(
        form: dict[str, Any] | None = None,
        x: np.ndarray | None = None,
        *,
        files: dict[str, bytes] | None = None,
        texts: Sequence[str] = (),
        classes: Sequence[str] = CLASSES,
        terms: dict[str, Any] | None = None,
        keys: int = 1,
    ) -> Bundle:
        form = form or ARRAY
        if x is None:
            x = np.random.default_rng(0).normal(size=(8, *form["shape"])).astype(np.float32)
        model = linear(form["dtype"], form["shape"], len(classes))
        logits = infer(open_session(model), x)
        questions = {"x": x, "logits": logits, "labels": logits.argmax(axis=1)}
        if texts:
            questions["texts"] = np.array(texts)
        content = {
            "model.onnx": model,
            "input.json": json.dumps(form).encode(),
            "labels.json": json.dumps({"classes": list(classes)}).encode(),
            "selftest.npz": npz_bytes(**questions),
            "card.md": b"# a card\n",
            **(files or {}),
        }
        folder = tmp_path / f"bundle{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for name, raw in content.items():
            (folder / name).write_bytes(raw)
        private = [generate_key() for _ in range(keys)]
        pems = [folder.parent / f"{folder.name}.{number}.pub" for number in range(keys)]
        for key, pem in zip(private, pems, strict=True):
            save_public(key.public_key(), pem)
        made = Bundle(folder, private, pems, _statement(content, terms or {}))
        made.sign()
        return made

    return bundle


def _statement(content: dict[str, bytes], terms: dict[str, Any]) -> dict[str, Any]:
    predicate = {
        "name": "clinics",
        "version": 3,
        "created": NOW.isoformat(),
        "expires": (NOW + timedelta(days=365)).isoformat(),
        "simulated": False,
        "minimum_runtime": "1.20",
        "gate": {"recipe": "fp32"},
        "selftest_min_agreement": 0.95,
        "sizes": {name: len(raw) for name, raw in content.items()},
    }
    subject = [
        {"name": name, "digest": {"sha256": hashlib.sha256(raw).hexdigest()}}
        for name, raw in content.items()
    ]
    return {
        "_type": STATEMENT_TYPE,
        "subject": subject,
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate | terms,
    }

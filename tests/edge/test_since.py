"""A new model against the bundle in the field: no worse one ships, none that reads otherwise."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from collegium.core.digest import sha256_hex
from collegium.core.errors import GateFailed, InvalidInput, MissingInput, Refused
from collegium.core.signing import generate_key
from collegium.data.public import PublicSet
from collegium.edge.bundle import Terms, json_bytes, npz_bytes, statement, write_bundle
from collegium.edge.since import Comparison, compare, judge, open_field, require_not_worse

CLASSES = ["no", "yes"]
FORM = {"schema": 1, "kind": "array", "dtype": "float32", "shape": [4]}
EYE = np.array([[3, 0], [0, 3], [0, 0], [0, 0]], np.float32)  # x[0] against x[1]


def linear(weight: np.ndarray) -> bytes:
    """x (n, 4) to x @ weight (4, classes)."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", weight.shape[1]])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def form_files(**changes: Any) -> dict[str, bytes]:
    return {
        "labels.json": json_bytes({"classes": changes.pop("classes", CLASSES)}),
        "input.json": json_bytes(FORM | changes),
    }


def terms(**changes: Any) -> Terms:
    made = Terms(
        name="four-hospitals",
        version=4,
        created=datetime.now(UTC) - timedelta(days=1),
        simulated=False,
        opset=20,
        lineage={},
        gate={"ok": True, "recipe": "fp32"},
        selftest_min_agreement=0.95,
    )
    return replace(made, **changes)


def put_in_field(
    out: Path, key: Ed25519PrivateKey, weight: np.ndarray = EYE, **changes: Any
) -> Path:
    x = np.eye(4, dtype=np.float32)
    files = {
        "model.onnx": linear(weight),
        "selftest.npz": npz_bytes(x=x, logits=x @ weight, labels=(x @ weight).argmax(axis=1)),
        **form_files(),
    }
    write_bundle(out, files, terms(**changes), [key])
    return out


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return generate_key()


@pytest.fixture(scope="module")
def test_part() -> PublicSet:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 400)
    x = rng.normal(size=(400, 4)).astype(np.float32)
    x[np.arange(400), y] += 2
    return PublicSet(name="public test", origin="public", x=x, y=y)


def against(field: Path, key: Ed25519PrivateKey, new: bytes, test: PublicSet) -> Comparison:
    return compare(new, open_field(field, [key.public_key()]), test, files=form_files())


def test_the_same_model_may_follow_itself(
    tmp_path: Path, key: Ed25519PrivateKey, test_part: PublicSet
) -> None:
    found = against(put_in_field(tmp_path / "b", key), key, linear(EYE), test_part)
    assert found.verdict.ok and found.agreement == 1.0 and found.n == 400
    assert found.accuracy == found.field_accuracy and found.accuracy_gain == 0.0
    assert found.auc_gain_ci == (0.0, 0.0)
    require_not_worse(found)
    assert json.loads(json.dumps(found.row(), allow_nan=False)) == found.row()


def test_the_next_bundle_names_the_one_before(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    field = open_field(put_in_field(tmp_path / "b", key), [key.public_key()])
    assert field.version == 4
    files = {
        path.name: path.read_bytes()
        for path in (tmp_path / "b").iterdir()
        if path.name != "bundle.sig"
    }
    created = datetime.fromisoformat(field.verified.predicate["created"])
    assert field.digest == sha256_hex(statement(files, terms(created=created)))


def test_a_worse_model_is_refused_with_the_figures(
    tmp_path: Path, key: Ed25519PrivateKey, test_part: PublicSet
) -> None:
    noisy = EYE + np.array([[0, 0], [0, 0], [3, 0], [0, 3]])
    found = against(put_in_field(tmp_path / "b", key), key, linear(noisy), test_part)
    assert not found.verdict.ok and (found.accuracy_gain or 0) < -0.01
    with pytest.raises(GateFailed, match="version 4") as caught:
        require_not_worse(found)
    assert caught.value.exit_code == 1
    for told in ("accuracy", "interval", "public test", "Cure"):
        assert told in str(caught.value)


def test_a_better_model_may_follow(
    tmp_path: Path, key: Ed25519PrivateKey, test_part: PublicSet
) -> None:
    noisy = EYE + np.array([[0, 0], [0, 0], [3, 0], [0, 3]])
    found = against(put_in_field(tmp_path / "b", key, noisy), key, linear(EYE), test_part)
    assert found.verdict.ok and (found.accuracy_gain_ci or (0,))[0] > 0
    assert (found.auc_gain_ci or (0,))[0] > 0


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"classes": ["yes", "no"]}, "classes"),
        ({"classes": ["no", "yes", "maybe"]}, "classes"),
        ({"shape": [2, 2]}, "records"),
        ({"dtype": "uint8"}, "records"),
    ],
)
def test_a_model_of_another_form_is_refused(
    changes: dict[str, Any],
    what: str,
    tmp_path: Path,
    key: Ed25519PrivateKey,
    test_part: PublicSet,
) -> None:
    field = open_field(put_in_field(tmp_path / "b", key), [key.public_key()])
    with pytest.raises(Refused, match=what):
        compare(linear(EYE), field, test_part, files=form_files(**changes))
    with pytest.raises(Refused, match="vocabulary"):
        compare(linear(EYE), field, test_part, files={**form_files(), "vocab.txt": b"a\n"})
    with pytest.raises(InvalidInput):
        compare(linear(EYE), field, test_part, files={"labels.json": b"{}"})


def test_how_the_json_is_laid_out_is_free(
    tmp_path: Path, key: Ed25519PrivateKey, test_part: PublicSet
) -> None:
    field = open_field(put_in_field(tmp_path / "b", key), [key.public_key()])
    files = {"labels.json": json.dumps({"classes": CLASSES}).encode()}
    files["input.json"] = json.dumps(dict(reversed(FORM.items()))).encode()
    assert compare(linear(EYE), field, test_part, files=files).verdict.ok


def test_other_outputs_than_the_fields_are_refused(
    tmp_path: Path, key: Ed25519PrivateKey, test_part: PublicSet
) -> None:
    field = put_in_field(tmp_path / "b", key)
    with pytest.raises(Refused, match="another form"):
        against(field, key, linear(np.ones((4, 3))), test_part)


def test_what_no_device_would_take_is_not_run(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    field = put_in_field(tmp_path / "b", key)
    with pytest.raises(Refused, match="BAD SIGNATURE"):
        open_field(field, [generate_key().public_key()])
    (field / "labels.json").write_text('{"classes": ["x", "y"]}')
    with pytest.raises(Refused, match="HASH"):
        open_field(field, [key.public_key()])
    with pytest.raises(MissingInput):
        open_field(tmp_path / "nowhere", [key.public_key()])
    simulated = put_in_field(tmp_path / "s", key, simulated=True)
    with pytest.raises(Refused, match="SIMULATED"):
        open_field(simulated, [key.public_key()])
    assert open_field(simulated, [key.public_key()], allow_simulated=True).version == 4


def test_an_expired_bundle_can_still_be_followed(
    tmp_path: Path, key: Ed25519PrivateKey, test_part: PublicSet
) -> None:
    then = datetime(2020, 1, 1, tzinfo=UTC)
    field = put_in_field(tmp_path / "b", key, created=then, valid_days=1)
    assert against(field, key, linear(EYE), test_part).verdict.ok


def test_without_labels_there_is_nothing_to_go_by(
    tmp_path: Path, key: Ed25519PrivateKey, test_part: PublicSet
) -> None:
    field = put_in_field(tmp_path / "b", key)
    found = against(field, key, linear(EYE), replace(test_part, y=None))
    assert found.verdict.code == "no figure" and found.accuracy is None
    empty = replace(test_part, x=test_part.x[:0], y=None)
    with pytest.raises(InvalidInput, match="public test part"):
        against(field, key, linear(EYE), empty)


def test_private_records_never_compare() -> None:
    with pytest.raises(Refused, match="private"):
        PublicSet(name="ward 7", origin="private", x=np.zeros((1, 4)))


@pytest.mark.parametrize(
    ("gain", "interval", "ok"),
    [
        (-0.01, (-0.03, 0.01), True),
        (-0.0101, (-0.03, 0.01), False),
        (-0.005, (-0.009, -0.001), False),
        (0.0, (-0.001, 0.0), True),
        (0.02, (0.01, 0.03), True),
    ],
)
def test_worse_is_a_lower_point_or_an_interval_below_zero(
    gain: float, interval: tuple[float, float], ok: bool
) -> None:
    assert judge({"accuracy": (gain, interval), "AUC": (None, None)}).ok == ok
    assert judge({"accuracy": (0.1, (0.0, 0.2)), "AUC": (gain, interval)}).ok == ok


@given(st.floats(allow_nan=True), st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1))
def test_whatever_follows_is_within_the_tolerance(
    gain: float, low: float, high: float, tolerance: float
) -> None:
    if judge({"AUC": (gain, (low, high))}, tolerance=tolerance).ok:
        assert gain >= -tolerance and high >= 0

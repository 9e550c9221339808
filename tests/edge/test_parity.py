"""Every candidate is measured: figures by hand, undefined ones None, timings taken as given."""

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from collegium.core.digest import sha256_hex
from collegium.core.errors import InvalidInput
from collegium.edge import parity as room
from collegium.edge.device import open_session
from collegium.edge.parity import Limits, answers, is_timed, measure, time_all, together
from collegium.edge.parity_figures import figures_of

LIMITS = Limits(min_agreement=0.95, max_accuracy_drop=0.02)
X = np.array([[1, 0], [0, 1], [2, 1], [1, 3]], np.float32)
TEACHER = np.array([0, 1, 0, 1])
TRUTH = np.array([0, 1, 0, 0])  # the teacher has 3 of 4


def linear(weight: np.ndarray, dtype: int = TensorProto.FLOAT) -> bytes:
    """x (n, 2) to x @ weight."""
    columns = weight.shape[1]
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["f", "w"], ["logits"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", dtype, ["n", weight.shape[0]])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", columns])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


SAME, SWAPPED = linear(np.eye(2)), linear(np.eye(2)[::-1])


def test_measure_counts_by_hand() -> None:
    """Four records; the swapped candidate disagrees with the teacher everywhere."""
    assert onnx.load_from_string(SAME).graph.node
    rows = measure(
        {"fp32": SAME, "int8-static": SWAPPED}, TEACHER, X, TRUTH, LIMITS, global_bytes=4000
    )
    assert [(r.agreement, r.accuracy, r.metric_delta) for r in rows] == [
        (1.0, 0.75, 0.0),
        (0.0, 0.25, -0.5),
    ]
    assert [r.verdict.code for r in rows] == ["ok", "agreement"]
    assert rows[0].latency_ratio == 1.0 and rows[0].n == 4 and rows[0].latency_noise == 0
    assert rows[0].size_bytes == len(SAME) and rows[0].size_ratio == 1.0
    assert rows[0].size_ratio_global == round(4000 / len(SAME), 4)
    assert [r.fidelity for r in rows] == [1.0, 0.0]
    # cosines by hand: 0, 0, (2+2)/5, (3+3)/10
    assert rows[1].cosine == pytest.approx((0 + 0 + 4 / 5 + 6 / 10) / 4, abs=1e-6)
    low, high = rows[1].metric_delta_ci or (0, 0)
    assert -1 <= low < -0.5 < high < 1
    assert rows[1].auc is not None and rows[1].auc_delta is None  # the teacher gave labels alone


def test_by_class_by_hand() -> None:
    row = measure({"fp32": SAME}, TEACHER, X, TRUTH, LIMITS, classes=("no", "yes", "never"))[0]
    assert row.per_class == (
        {"class": "no", "n": 3, "teacher_recall": 2 / 3, "recall": 2 / 3, "agreement": 1.0},
        {"class": "yes", "n": 1, "teacher_recall": 1.0, "recall": 1.0, "agreement": 1.0},
        {"class": "never", "n": 0, "teacher_recall": None, "recall": None, "agreement": None},
    )


def test_logits_of_the_teacher_give_the_change_of_auc() -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 300)
    x = rng.normal(size=(300, 2)).astype(np.float32)
    x[np.arange(300), y] += 1
    worse = x + rng.normal(size=x.shape) * 0.5
    row = measure({"fp32": SAME}, worse, x, y, LIMITS)[0]
    mine, teacher = figures_of(x, y), figures_of(worse, y)
    assert row.auc == pytest.approx(mine["auc"], abs=1e-6)
    assert row.auc_delta == pytest.approx(mine["auc"] - teacher["auc"], abs=2e-6)
    low, high = row.auc_delta_ci or (0, 0)
    assert low < (row.auc_delta or 0) < high
    assert row.calibration_error == pytest.approx(mine["calibration_error"], abs=1e-6)
    again = measure({"fp32": SAME}, worse, x, y, LIMITS)[0]
    assert again.auc_delta_ci == row.auc_delta_ci


def test_undefined_figures_are_none_and_gate_nothing() -> None:
    strict = Limits(min_agreement=0, max_accuracy_drop=0, max_auc_drop=0)
    unlabelled = measure({"fp32": SAME}, np.eye(2)[TEACHER], X, None, strict)[0]
    assert unlabelled.accuracy is None and unlabelled.metric_delta is None
    assert unlabelled.auc is None and unlabelled.per_class == ()
    one_class = measure({"fp32": SAME}, np.eye(2)[TEACHER], X, np.zeros(4, np.int64), strict)[0]
    assert one_class.auc is None and one_class.auc_delta is None and one_class.accuracy == 0.5
    for row in (unlabelled, one_class):
        assert row.verdict.ok
        json.dumps(row.row(), allow_nan=False)


def test_records_whose_outputs_are_not_finite_count_as_zeros() -> None:
    x = X.copy()
    x[1] = np.nan
    row = measure({"fp32": SAME, "b": SAME}, x, x, TRUTH, LIMITS)[1]
    assert row.cosine == 1.0 and row.agreement == 1.0
    json.dumps(row.row(), allow_nan=False)


def test_a_row_is_plain_and_can_be_read_again() -> None:
    rows = [row.row() for row in measure({"fp32": SAME}, np.eye(2)[TEACHER], X, TRUTH, LIMITS)]
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0]["sha256"] == sha256_hex(SAME)


@pytest.mark.parametrize(
    ("teacher", "y"),
    [
        (TEACHER[:3], TRUTH),
        (TEACHER, TRUTH[:3]),
        (np.eye(2)[TEACHER], np.array([0, 1, 2, 0])),
        (np.eye(2)[TEACHER], np.array([0, 1, -1, 0])),
    ],
)
def test_what_does_not_fit_is_refused(teacher: np.ndarray, y: np.ndarray) -> None:
    with pytest.raises(InvalidInput, match="does not fit"):
        measure({"fp32": SAME}, teacher, X, y, LIMITS)


def test_no_records_are_refused() -> None:
    with pytest.raises(InvalidInput, match="0 records"):
        measure({"fp32": SAME}, TEACHER[:0], X[:0], TRUTH[:0], LIMITS)


def test_known_timings_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = {"fp32": SAME, "int8-static": SWAPPED}
    known = time_all(candidates, X)
    second = sha256_hex(SWAPPED)
    known[second] = replace(known[second], cpu_ms=123.0, ratio=9.0)
    assert is_timed(candidates, known)

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(room, "time_candidates", never)
    rows = measure(candidates, TEACHER, X, TRUTH, LIMITS, known=known)
    assert (rows[1].cpu_ms, rows[1].latency_ratio) == (123.0, 9.0)
    assert [r.row() for r in rows] == [
        r.row() for r in measure(candidates, TEACHER, X, TRUTH, LIMITS, known=known)
    ]


def test_timings_of_other_candidates_are_not_taken() -> None:
    known = time_all({"fp32": SAME, "int8": SWAPPED}, X)
    third = linear(np.eye(2) * 3)
    assert not is_timed({"fp32": SAME, "int8": third}, known)
    assert not is_timed({"fp32": SWAPPED, "int8": SAME}, known)  # another reference
    rows = measure({"fp32": third}, TEACHER, X, TRUTH, LIMITS, known=known)
    assert rows[0].latency_ratio == 1.0


def test_equal_files_are_timed_once() -> None:
    timings = time_all({"fp32": SAME, "a": SWAPPED, "b": SWAPPED}, X)
    assert len(timings) == 2
    rows = measure({"fp32": SAME, "a": SWAPPED, "b": SWAPPED}, TEACHER, X, TRUTH, LIMITS)
    assert rows[1].cpu_ms == rows[2].cpu_ms


def test_records_reach_the_graph_in_its_type() -> None:
    model = linear(np.eye(2), TensorProto.UINT8)
    found = answers(open_session(model), X.astype(np.uint8), at_once=3)
    np.testing.assert_array_equal(found, X)


def test_a_dynamic_file_answers_record_by_record_as_on_a_device() -> None:
    assert together("int8-dynamic", X, 1024) == 1
    assert together("int8-static", X, 1024) == 1024

"""The gate and the choice: nothing slow, nothing failed ever ships."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from collegium.core.errors import GateFailed
from collegium.edge.parity import NEGLIGIBLE_MS, Limits, Parity, choose, gate, measure

LIMITS = Limits(min_agreement=0.95, max_accuracy_drop=0.02)


def row(
    recipe: str, *, ms: float, size: int, agreement: float = 1.0, noise: float = 0.01
) -> Parity:
    return Parity(
        recipe=recipe,
        n=100,
        agreement=agreement,
        accuracy=0.9,
        metric_delta=0.0,
        size_bytes=size,
        cpu_ms=ms,
        cpu_noise=noise,
        latency_ratio=1.0,
        verdict=gate(agreement, 0.0, LIMITS),
    )


def linear(weight: np.ndarray) -> bytes:
    """x (n, 2) to x @ weight."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def test_measure_counts_by_hand() -> None:
    """Four records; the swapped candidate disagrees with the teacher everywhere."""
    x = np.array([[1, 0], [0, 1], [2, 1], [1, 3]], np.float32)
    teacher = np.array([0, 1, 0, 1])
    truth = np.array([0, 1, 0, 0])  # the teacher has 3 of 4
    same, swapped = linear(np.eye(2)), linear(np.eye(2)[::-1])
    assert onnx.load_from_string(same).graph.node
    rows = measure({"fp32": same, "int8-static": swapped}, teacher, x, truth, LIMITS)
    assert [(r.agreement, r.accuracy, r.metric_delta) for r in rows] == [
        (1.0, 0.75, 0.0),
        (0.0, 0.25, -0.5),
    ]
    assert [r.verdict.code for r in rows] == ["ok", "agreement"]
    assert rows[0].latency_ratio == 1.0 and rows[0].n == 4
    assert rows[0].size_bytes == len(same)
    unlabelled = measure({"fp32": same}, teacher, x, None, LIMITS)[0]
    assert unlabelled.accuracy is None and unlabelled.metric_delta is None


@pytest.mark.parametrize(
    ("agreement", "delta", "code"),
    [
        (0.95, -0.02, "ok"),
        (0.9499, 0.0, "agreement"),
        (1.0, -0.021, "accuracy"),
        (0.99, None, "ok"),
        (float("nan"), 0.0, "agreement"),
        (1.0, float("nan"), "accuracy"),
    ],
)
def test_gate(agreement: float, delta: float | None, code: str) -> None:
    assert gate(agreement, delta, LIMITS).code == code


def test_where_time_is_negligible_the_smaller_file_ships() -> None:
    fast, small = row("fp32", ms=0.010, size=80), row("int8-static", ms=0.012, size=23)
    assert choose([fast, small]).recipe == "int8-static"


def test_a_slower_candidate_never_ships() -> None:
    """MobileNet's trap: int8 at 0.79 of fp32's speed."""
    fast, slow = row("fp32", ms=2.2, size=100), row("int8-static", ms=2.8, size=27)
    assert choose([fast, slow]).recipe == "fp32"
    assert choose([fast, row("int8-static", ms=0.7, size=27)]).recipe == "int8-static"


def test_wanted_recipe_is_the_only_one_considered() -> None:
    fast, slow = row("fp32", ms=2.2, size=100), row("int8-static", ms=2.8, size=27)
    assert choose([fast, slow], "int8-static").recipe == "int8-static"
    bad = row("int8-static", ms=0.1, size=27, agreement=0.5)
    with pytest.raises(GateFailed):
        choose([fast, bad], "int8-static")


def test_gate_failure_is_exit_1_and_names_every_candidate() -> None:
    rows = [row(r, ms=1, size=9, agreement=0.9) for r in ("fp32", "int8-static")]
    with pytest.raises(GateFailed) as caught:
        choose(rows)
    assert caught.value.exit_code == 1
    assert "fp32" in str(caught.value) and "int8-static" in str(caught.value)


def test_a_slow_survivor_of_a_failed_fp32_does_not_ship() -> None:
    with pytest.raises(GateFailed, match="too slow"):
        choose([row("fp32", ms=1, size=9, agreement=0.1), row("int8-static", ms=2, size=3)])


rows_of: Callable[[str], st.SearchStrategy[Parity]] = lambda recipe: st.builds(  # noqa: E731
    row,
    st.just(recipe),
    ms=st.floats(0.001, 10),
    size=st.integers(1, 100),
    agreement=st.floats(0.9, 1),
    noise=st.floats(0, 0.2),
)


@given(st.tuples(rows_of("fp32"), rows_of("int8-static"), rows_of("int8-percentile")))
def test_whatever_ships_passed_and_is_not_slower(rows: tuple[Parity, ...]) -> None:
    try:
        chosen = choose(rows)
    except GateFailed:
        return
    assert chosen.verdict.ok
    tolerance = 1 + max(0.05, *(r.cpu_noise for r in rows))
    assert chosen.cpu_ms <= max(NEGLIGIBLE_MS, rows[0].cpu_ms * tolerance)

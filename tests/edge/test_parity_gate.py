"""The gate: the first limit that is missed is named; an undefined figure gates nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.plan_edge import EdgeConfig
from collegium.edge.parity_gate import Limits, gate, limits_of

LIMITS = Limits(min_agreement=0.95, max_accuracy_drop=0.02)
FULL = Limits(
    min_agreement=0.95,
    max_accuracy_drop=0.02,
    min_fidelity=0.97,
    max_auc_drop=0.01,
    max_size_bytes=1000,
)
NAN = float("nan")


@pytest.mark.parametrize(
    ("agreement", "delta", "code"),
    [
        (0.95, -0.02, "ok"),
        (0.9499, 0.0, "agreement"),
        (1.0, -0.021, "accuracy"),
        (0.99, None, "ok"),
        (NAN, 0.0, "agreement"),
        (1.0, NAN, "accuracy"),
    ],
)
def test_gate(agreement: float, delta: float | None, code: str) -> None:
    assert gate(agreement, delta, LIMITS).code == code


@pytest.mark.parametrize(
    ("fidelity", "delta", "auc", "size", "code"),
    [
        (0.97, -0.02, -0.01, 1000, "ok"),
        (0.969, -0.5, -0.5, 9999, "fidelity"),
        (NAN, 0.0, 0.0, 1, "fidelity"),
        (None, -0.5, -0.5, 9999, "accuracy"),
        (1.0, 0.0, -0.0101, 9999, "auc"),
        (1.0, 0.0, NAN, 1, "auc"),
        (1.0, None, None, 1001, "size"),
        (None, None, None, None, "ok"),
    ],
)
def test_the_first_limit_that_is_missed_is_named_with_a_cure(
    fidelity: float | None, delta: float | None, auc: float | None, size: int | None, code: str
) -> None:
    found = gate(1.0, delta, FULL, auc_delta=auc, fidelity=fidelity, size_bytes=size)
    assert found.code == code
    assert found.ok == (code == "ok")
    assert bool(found.reason) == bool(found.cure) == (code != "ok")


def test_limits_come_from_the_plan() -> None:
    edge = EdgeConfig(min_agreement=0.5, max_accuracy_drop=0.4, min_fidelity=0.3, max_auc_drop=0.2)
    assert limits_of(edge, max_size_bytes=7) == Limits(
        min_agreement=0.5,
        max_accuracy_drop=0.4,
        min_fidelity=0.3,
        max_auc_drop=0.2,
        max_size_bytes=7,
    )
    assert limits_of(edge).row()["max_size_bytes"] == 0


@given(
    agreement=st.floats(allow_nan=True),
    delta=st.none() | st.floats(allow_nan=True),
    auc=st.none() | st.floats(allow_nan=True),
    fidelity=st.none() | st.floats(allow_nan=True),
)
def test_whatever_passes_is_within_every_limit(
    agreement: float, delta: float | None, auc: float | None, fidelity: float | None
) -> None:
    if gate(agreement, delta, FULL, auc_delta=auc, fidelity=fidelity).ok:
        assert agreement >= 0.95
        assert delta is None or delta >= -0.02
        assert auc is None or auc >= -0.01
        assert fidelity is None or fidelity >= 0.97

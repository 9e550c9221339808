"""What ships: the fastest, never a slower one; or the smallest where the plan prefers size."""

import platform
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.errors import GateFailed
from collegium.edge.choosing import (
    MOST_TOLERANCE,
    RULES,
    choose,
    is_slower,
    remark,
    rule_for,
    tolerance,
)
from collegium.edge.parity_gate import Limits, Parity, gate

LIMITS = Limits(min_agreement=0.95, max_accuracy_drop=0.02)


def row(
    recipe: str, *, ratio: float, size: int, agreement: float = 1.0, noise: float = 0.01
) -> Parity:
    return Parity(
        recipe=recipe,
        n=100,
        agreement=agreement,
        accuracy=0.9,
        metric_delta=0.0,
        size_bytes=size,
        cpu_ms=2.0 * ratio,
        cpu_noise=noise,
        latency_ratio=ratio,
        latency_noise=noise,
        verdict=gate(agreement, 0.0, LIMITS),
    )


FP32 = row("fp32", ratio=1.0, size=100, noise=0)


def test_a_slower_candidate_never_ships() -> None:
    """MobileNet's trap: int8 at 0.79 of fp32's speed."""
    assert choose([FP32, row("int8-static", ratio=1.27, size=27)]).recipe == "fp32"
    assert choose([FP32, row("int8-static", ratio=0.33, size=27)]).recipe == "int8-static"


def test_noise_excuses_a_little_and_no_more() -> None:
    assert choose([FP32, row("int8", ratio=1.06, size=27, noise=0.076)]).recipe == "int8"
    assert choose([FP32, row("int8", ratio=1.06, size=27, noise=0.03)]).recipe == "fp32"
    assert choose([FP32, row("int8", ratio=1.27, size=27, noise=0.9)]).recipe == "fp32"
    assert choose([FP32, row("int8", ratio=1.015, size=27, noise=0.0)]).recipe == "int8"


def test_of_equally_fast_ones_the_smallest_file_ships() -> None:
    rows = [
        FP32,
        row("fast", ratio=0.500, size=60, noise=0.03),
        row("small", ratio=0.512, size=40, noise=0.01),
        row("smaller-but-slower", ratio=0.6, size=20, noise=0.03),
    ]
    assert choose(rows).recipe == "small"


def test_size_takes_the_smallest_however_fast() -> None:
    rows = [FP32, row("a", ratio=9.0, size=20), row("b", ratio=0.1, size=30)]
    assert choose(rows, prefer="size").recipe == "a"
    assert choose(rows, prefer="speed").recipe == "b"
    failed = row("c", ratio=0.1, size=1, agreement=0.5)
    assert choose([*rows, failed], prefer="size").recipe == "a"


def test_of_one_size_the_faster_then_the_truer_ships() -> None:
    one = replace(row("a", ratio=0.500, size=20), fidelity=0.97)
    two = replace(row("b", ratio=0.505, size=20), fidelity=0.99)  # as fast, within noise
    slow = replace(row("c", ratio=0.9, size=20), fidelity=1.0)
    for prefer in ("speed", "size"):
        assert choose([FP32, one, two, slow], prefer=prefer).recipe == "b"
        assert choose([FP32, one, replace(two, fidelity=0.97)], prefer=prefer).recipe == "a"


def test_a_wanted_recipe_ships_slow_when_it_is_named_and_says_so() -> None:
    slow = row("int8-static", ratio=1.27, size=27)
    found = choose([FP32, slow], "int8-static")
    assert found.recipe == "int8-static"
    assert remark(found, "int8-static", "speed") == (
        "takes 1.27 times the CPU time of fp32; it ships because the plan names it"
    )
    assert 'prefer = "size"' in remark(slow, "auto", "size")
    assert remark(FP32, "auto", "speed") == ""
    bad = row("int8-static", ratio=0.1, size=27, agreement=0.5)
    with pytest.raises(GateFailed):
        choose([FP32, bad], "int8-static")


def test_gate_failure_is_exit_1_and_names_every_candidate() -> None:
    rows = [row(r, ratio=1, size=9, agreement=0.9) for r in ("fp32", "int8-static")]
    with pytest.raises(GateFailed) as caught:
        choose(rows)
    assert caught.value.exit_code == 1
    assert "fp32: agrees" in str(caught.value) and "int8-static: agrees" in str(caught.value)


def test_a_slow_survivor_of_a_failed_fp32_does_not_ship() -> None:
    failed, slow = row("fp32", ratio=1, size=9, agreement=0.1), row("int8", ratio=2, size=3)
    with pytest.raises(GateFailed, match="too slow"):
        choose([failed, slow])
    assert choose([failed, slow], prefer="size").recipe == "int8"


def test_where_devices_have_another_processor_no_time_excludes_a_candidate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """S8S8 for ARM is slow on x86: that says nothing of the devices."""
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    rows = [FP32, row("s8s8", ratio=1.5, size=27), row("other", ratio=0.5, size=30)]
    assert choose(rows, target="arm").recipe == "s8s8"
    assert choose(rows, target="x86").recipe == choose(rows).recipe == "other"
    tied = [FP32, row("a", ratio=0.1, size=27), replace(rows[1], fidelity=1.0)]
    tied[1] = replace(tied[1], fidelity=0.9)
    assert choose(tied, target="arm").recipe == "s8s8"
    assert "excludes" in rule_for("auto", "speed", "arm") != rule_for("auto", "speed", "x86")
    assert "excluded no candidate" in remark(rows[2], "auto", "speed", "arm")
    assert remark(rows[2], "auto", "speed", "x86") == ""
    failed = replace(rows[1], verdict=gate(0.1, 0.0, LIMITS))
    assert choose([FP32, failed], target="arm").recipe == "fp32"


def test_the_rule_in_words() -> None:
    assert rule_for("auto", "speed") == RULES["speed"] != RULES["size"] == rule_for("auto", "size")
    assert "names" in rule_for("int8-static", "speed")


ROWS = st.lists(
    st.builds(
        row,
        st.sampled_from(["a", "b", "c"]),
        ratio=st.floats(0.01, 10),
        size=st.integers(1, 100),
        agreement=st.floats(0.9, 1),
        noise=st.floats(0, 0.5),
    ),
    max_size=5,
)


@given(ROWS, st.floats(0.9, 1), st.sampled_from(["speed", "size"]))
def test_whatever_ships_passed_and_is_best_by_the_rule(
    others: list[Parity], agreement: float, prefer: str
) -> None:
    rows = [row("fp32", ratio=1.0, size=50, agreement=agreement, noise=0), *others]
    try:
        chosen = choose(rows, prefer=prefer)
    except GateFailed:
        assert not any(r.verdict.ok and (prefer == "size" or not is_slower(r)) for r in rows)
        return
    assert chosen.verdict.ok
    passed = [r for r in rows if r.verdict.ok]
    if prefer == "size":
        assert chosen.size_bytes == min(r.size_bytes for r in passed)
        return
    assert chosen.latency_ratio <= 1 + tolerance(chosen) <= 1 + MOST_TOLERANCE
    fastest = min(r.latency_ratio for r in passed)
    assert chosen.latency_ratio <= fastest * (1 + MOST_TOLERANCE)

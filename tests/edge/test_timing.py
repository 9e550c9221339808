"""Timings: paired, bounded, kept as plain values; nothing here asserts how long anything took."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.errors import InvalidInput
from collegium.edge import timing as room
from collegium.edge.timing import Timing, machine, time_candidates, timings_from


class Clock:
    """A thread clock that only sessions move, each by its own cost."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: dict[float, int] = {}

    def spend(self, seconds: float, _record: np.ndarray) -> None:
        self.now += seconds
        self.calls[seconds] = self.calls.get(seconds, 0) + 1

    def thread_time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(room, "infer", made.spend)
    monkeypatch.setattr(room.time, "thread_time", made.thread_time)
    return made


RECORD = np.zeros((1, 2), np.float32)


def timed(clock: Clock, **costs: float) -> dict[str, Timing]:
    return time_candidates(costs, RECORD)  # type: ignore[arg-type]


def test_ratios_are_to_the_first_in_the_same_block(clock: Clock) -> None:
    found = timed(clock, fp32=0.02, int8=0.005, slow=0.05)
    assert [t.ratio for t in found.values()] == [1.0, 0.25, 2.5]
    assert [t.cpu_ms for t in found.values()] == [20.0, 5.0, 50.0]
    assert {t.reference for t in found.values()} == {"fp32"}
    assert all(t.noise == 0 and t.ratio_noise == 0 for t in found.values())


@pytest.mark.parametrize("seconds", [1e-5, 1.6e-5, 1e-3, 0.02, 0.106, 0.4])
def test_one_candidate_takes_about_the_budget_at_most(clock: Clock, seconds: float) -> None:
    """A resnet18 at 20 ms takes one call per block: 31 calls, not 620."""
    timed(clock, fp32=seconds)
    assert (clock.calls[seconds] - 2) * seconds <= room.BUDGET_S * 1.05  # two warm the session
    assert clock.calls[seconds] >= room.LEAST_BLOCKS


def test_very_slow_models_get_few_blocks_all_the_same(clock: Clock) -> None:
    found = timed(clock, fp32=3.0, other=0.01)
    assert found["fp32"].blocks == found["other"].blocks == room.LEAST_BLOCKS


def test_small_models_get_blocks_that_the_clock_can_tell(clock: Clock) -> None:
    found = timed(clock, fp32=1.6e-5)["fp32"]
    assert found.calls == room.MOST_CALLS and found.blocks == room.BLOCKS


def test_timings_survive_a_file() -> None:
    stored = Timing(
        cpu_ms=0.01581, noise=0.076, ratio=1.0, ratio_noise=0.0, blocks=31, calls=500,
        reference="sha256:ab", machine=machine(),
    )  # fmt: skip
    plain = json.loads(json.dumps({"sha256:ab": stored.row()}, allow_nan=False))
    assert timings_from(plain) == {"sha256:ab": stored}
    assert timings_from({}) == {}


@pytest.mark.parametrize(
    "spoilt",
    [None, [], {"a": None}, {"a": {}}, {"a": {"cpu_ms": 1}}, {"a": "cpu_ms"}],
)
def test_what_is_no_timing_is_refused(spoilt: object) -> None:
    with pytest.raises(InvalidInput, match="stored timings"):
        timings_from(spoilt)


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, -1.0, "fast"])
def test_odd_numbers_in_a_timing_are_refused(value: object) -> None:
    row = Timing(
        cpu_ms=1.0, noise=0.0, ratio=1.0, ratio_noise=0.0, blocks=5, calls=1,
        reference="a", machine={},
    ).row()  # fmt: skip
    with pytest.raises(InvalidInput):
        timings_from({"a": row | {"cpu_ms": value}})


def test_the_machine_tells_what_int8_depends_on() -> None:
    told = machine()
    assert set(told) == {
        "processor", "features", "architecture", "system", "processors", "onnxruntime",
    }  # fmt: skip
    assert set(told["features"]) <= set(room.FEATURES)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["cpu_ms", "ratio", "machine", "reference", "blocks", "calls"])
            | st.text(max_size=3),
            inner,
            max_size=8,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_whatever_a_file_holds_is_timings_or_refused(value: object) -> None:
    try:
        found = timings_from(value)
    except InvalidInput:
        return
    assert {digest: timing.row() for digest, timing in found.items()} == value


@given(
    st.floats(1e-5, 1e4),
    st.floats(0, 1),
    st.floats(1e-4, 1e3),
    st.floats(0, 1),
    st.integers(1, 99),
)
def test_every_timing_survives_json(
    ms: float, noise: float, ratio: float, ratio_noise: float, blocks: int
) -> None:
    made = Timing(
        cpu_ms=ms, noise=noise, ratio=ratio, ratio_noise=ratio_noise, blocks=blocks, calls=1,
        reference="a", machine={"processor": "x"},
    )  # fmt: skip
    assert timings_from(json.loads(json.dumps({"a": made.row()}))) == {"a": made}

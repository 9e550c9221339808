"""Figures as people read them."""

import pytest

from collegium.server.words import clean, duration, epsilon, general, shrinkage, size


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.9998, "3.00"), (3.0, "3.00"), (1.0001, "1.01"), (0.25, "0.25"), (0, "0.00")],
)
def test_epsilon_is_never_printed_below_its_value(value: float, text: str) -> None:
    assert epsilon(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (434_664, "435 kB"), (2.5e9, "2.5 GB")],
)
def test_size(count: float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1.25, "1.2 s"),
        (9, "9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (250, "4 min 10 s"),
        (7500, "2 h 5 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_general() -> None:
    assert [general(v) for v in (3.0, 0.3, 1e-5, 1e-12)] == ["3", "0.3", "1e-5", "1e-12"]


def test_clean_leaves_no_control_character() -> None:
    assert clean("a\x1b[2Jb\r\n\u202ec") == "a?[2Jb???c"


def test_shrinkage_of_a_file_that_grew() -> None:
    assert shrinkage(18.57) == "18.6 times smaller"
    assert shrinkage(0.4) == "2.5 times larger"

"""The figures' geometry, worked out by hand."""

import pytest

from collegium.server.plots import Level, Series, Value, ceiling, comparison, curves


def test_comparison_spans_from_the_tenth_below_the_lowest_to_one() -> None:
    plot = comparison(
        "Accuracy",
        [
            Value(label="a", note="", kind="plain", value=0.75, parts=[("x", 0.62), ("y", 0.88)]),
            Value(label="b", note="", kind="main", value=1.0),
        ],
        percent=True,
        metric="accuracy",
    )
    # the lowest figure is .62, so the axis runs from .6 at the left to 1 at the right
    assert [tick.text for tick in plot.ticks] == ["60%", "70%", "80%", "90%", "100%"]
    assert (plot.ticks[0].at, plot.ticks[-1].at) == (plot.left, plot.right)
    first, second = plot.marks
    assert second.x == plot.right
    assert first.x == pytest.approx(plot.left + (plot.right - plot.left) * 0.15 / 0.4, abs=0.06)
    assert [name for name, _, _ in first.parts] == ["x", "y"]
    assert second.y > first.y


def test_comparison_of_perfect_models_has_an_axis() -> None:
    plot = comparison(
        "AUC", [Value(label="a", note="", kind="main", value=1.0)], metric="auc", percent=False
    )
    assert plot.marks[0].x == plot.right
    assert [tick.text for tick in plot.ticks] == ["0.9", "1.0"]


def test_curves_map_rounds_and_values_to_the_corners() -> None:
    chart = curves(
        "t",
        [Series(label="", kind="main", points=[(1, 0.0), (5, 1.0)])],
        levels=[Level(label="in", value=0.5), Level(label="out", value=2.0)],
        low=0.0,
        high=1.0,
        percent=False,
    )
    assert chart.strokes[0].path == f"M{chart.left} {chart.bottom}L{chart.right} {chart.top}"
    assert chart.strokes[0].end == (chart.right, chart.top)
    assert [rule.text for rule in chart.levels] == ["in"]
    assert chart.levels[0].at == (chart.top + chart.bottom) / 2
    assert (chart.x_ticks[0].text, chart.x_ticks[-1].text) == ("1", "5")


def test_curve_of_one_round() -> None:
    chart = curves(
        "t", [Series(label="", kind="main", points=[(1, 0.4)])], low=0.0, high=1.0, percent=True
    )
    assert chart.strokes[0].path.startswith("M")
    assert [tick.text for tick in chart.x_ticks] == ["1"]


@pytest.mark.parametrize("value", [0.003, 1.0, 3.0, 100.0])
def test_ceiling_leaves_air(value: float) -> None:
    assert value < ceiling(value) < 1.5 * value

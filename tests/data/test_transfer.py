"""The edge stage's sets: synthetic within public bounds, or given and checked; no others."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collegium.core.errors import InvalidInput, MissingInput, Refused
from collegium.core.plan import ModelRef, Plan
from collegium.data.public import PublicSet
from collegium.data.transfer import transfer_set
from collegium.data.transfer_noise import ROWS, Tokens

MakePlan = Callable[..., Plan]
IMAGE = ModelRef(
    name="torchvision:squeezenet1_0",
    weights="sha256:" + "0" * 64,
    task="classification",
    classes=("a", "b"),
    image=(12, 10, 1),
)
TEXT = ModelRef(name="text:hashed", task="classification", classes=("a", "b"))
GLYPH = ModelRef(name="collegium:glyph-cnn", task="classification", classes=tuple("0123456789"))
TABLE = ModelRef(
    name="tabular:linear",
    task="classification",
    classes=("a", "b"),
    bounds={"age": (0.0, 120.0), "dose": (-1.0, 1.0)},
    categories={"ward": ("north", "south")},
)
TOKENS = Tokens(count=6, words=np.arange(50, dtype=np.int32), padding=-1)


@pytest.fixture
def plan_of(make_plan: MakePlan) -> Callable[..., Plan]:
    """The builder of plans with a model and the name of a transfer set."""

    def make(model: ModelRef, transfer: str = "auto") -> Plan:
        plan = make_plan()
        edge = replace(plan.edge, transfer=transfer)
        return replace(plan, model=model, edge=edge, simulation=None)

    return make


def images(**changes: Any) -> PublicSet:
    x = np.random.default_rng(0).integers(0, 256, (20, 12, 10, 1)).astype(np.uint8)
    return PublicSet(**{"name": "scans", "origin": "public", "x": x} | changes)


def test_rows_within_bounds(make_plan: MakePlan) -> None:
    plan = make_plan()
    found = transfer_set(plan, seed=1)
    assert (found.origin, found.name, found.data_free) == ("synthetic", "synthetic:bounds", True)
    assert found.y is None
    assert found.x.shape == (ROWS, 3)
    assert found.x.dtype == np.float32
    assert found.x.min() >= -1 and found.x.max() <= 1
    assert abs(found.x.mean()) < 0.05
    assert transfer_set(plan, seed=1).digest == found.digest
    assert transfer_set(plan, seed=2).digest != found.digest


@pytest.mark.parametrize("missing", ["refuse", "mean", "flag"])
@pytest.mark.parametrize("unknown", ["refuse", "other"])
def test_rows_have_gaps_where_the_model_takes_them(
    missing: str, unknown: str, plan_of: Callable[..., Plan]
) -> None:
    model = replace(TABLE, missing=missing, unknown=unknown)  # type: ignore[arg-type]
    x = transfer_set(plan_of(model), seed=0).x
    gaps, others = np.isnan(x[:, :2]).mean(), (x[:, 2] == -1).mean()
    assert gaps == (0 if missing == "refuse" else pytest.approx(0.1, abs=0.02))
    assert others == (0 if unknown == "refuse" else pytest.approx(0.1, abs=0.02))
    assert set(np.unique(x[:, 2])) - {-1} == {0, 1}
    assert not np.isnan(x[:, 2]).any()
    assert np.nanmax(x[:, 0]) <= 120 and np.nanmin(x[:, 1]) >= -1


def test_what_auto_means(plan_of: Callable[..., Plan]) -> None:
    glyphs = transfer_set(plan_of(GLYPH), seed=0)
    assert glyphs.name.startswith("collegium:glyphs/") and glyphs.x.shape[1:] == (8, 8)
    assert glyphs.y is None and not glyphs.data_free
    noise = transfer_set(plan_of(IMAGE), seed=0)
    assert (noise.name, noise.origin, noise.data_free) == ("synthetic:noise", "synthetic", True)
    given = images(y=np.zeros(20, dtype=np.int64))
    found = transfer_set(plan_of(IMAGE), seed=0, given=given)
    assert found.name == "scans" and found.y is None
    assert found.x is given.x


def test_noise_is_raw_records(plan_of: Callable[..., Plan]) -> None:
    found = transfer_set(plan_of(replace(IMAGE, image=(6, 5, 3)), "synthetic:noise"), seed=0).x
    assert found.shape[1:] == (6, 5, 3) and found.dtype == np.uint8
    small = transfer_set(plan_of(GLYPH, "synthetic:noise"), seed=0).x
    assert small.shape[1:] == (8, 8) and small.dtype == np.float32
    assert small.min() == 0 and small.max() == 16 and np.array_equal(small, np.round(small))
    rows = transfer_set(plan_of(TABLE, "synthetic:noise"), seed=0)
    assert rows.name == "synthetic:bounds"
    texts = transfer_set(plan_of(TEXT, "synthetic:noise"), seed=0, tokens=TOKENS)
    assert texts.data_free and texts.x.dtype == np.int32 and texts.x.shape[1:] == (6,)


def test_texts_are_not_made_up_without_their_numbers(plan_of: Callable[..., Plan]) -> None:
    with pytest.raises(InvalidInput, match='transfer = "public"'):
        transfer_set(plan_of(TEXT), seed=0)


@pytest.mark.parametrize("name", ["sklearn:digits", "csv:records", "site:north"])
def test_nothing_else(name: str, plan_of: Callable[..., Plan]) -> None:
    """A plan with such a name is refused already; whoever smuggles one in gets no records."""
    plan = plan_of(TABLE)
    object.__setattr__(plan.edge, "transfer", name)
    with pytest.raises(InvalidInput, match="public or synthetic"):
        transfer_set(plan, seed=0)


def test_bounds_are_for_tables(plan_of: Callable[..., Plan]) -> None:
    with pytest.raises(InvalidInput, match="not known"):
        transfer_set(plan_of(IMAGE, "synthetic:bounds"), seed=0)


@pytest.mark.parametrize("name", ["public", "sha256:" + "ab" * 32])
def test_a_public_set_must_be_given(name: str, plan_of: Callable[..., Plan]) -> None:
    with pytest.raises(MissingInput, match=r"--transfer FILE.*public_share"):
        transfer_set(plan_of(IMAGE, name), seed=0)


def test_the_plan_may_name_its_digest(plan_of: Callable[..., Plan]) -> None:
    labelled = images(y=np.arange(20, dtype=np.int64))
    for digest in (labelled.digest, images().digest):  # with its labels, or without them
        found = transfer_set(plan_of(IMAGE, digest), seed=0, given=labelled)
        assert found.digest == images().digest
    other = images(x=images().x[::-1])
    with pytest.raises(InvalidInput, match="digest"):
        transfer_set(plan_of(IMAGE, images().digest), seed=0, given=other)


def test_private_records_are_refused(plan_of: Callable[..., Plan]) -> None:
    smuggled = images()
    object.__setattr__(smuggled, "origin", "private")
    for name in ("auto", "public"):
        with pytest.raises(Refused, match="public, synthetic or already released"):
            transfer_set(plan_of(IMAGE, name), seed=0, given=smuggled)


@pytest.mark.parametrize(
    ("model", "x", "why"),
    [
        (IMAGE, np.zeros((4, 10, 12, 1), np.uint8), "shape"),
        (IMAGE, np.zeros((4, 12, 10, 1), np.float64), "float64"),
        (IMAGE, np.full((4, 12, 10, 1), 256, np.float32), "4 of 4"),
        (IMAGE, np.full((4, 12, 10, 1), np.nan, np.float32), "4 of 4"),
        (GLYPH, np.full((4, 8, 8), 17, np.float32), "4 of 4"),
        (GLYPH, np.zeros((4, 8, 8, 1), np.float32), "shape"),
        (TABLE, np.zeros((4, 2), np.float32), "shape"),
        (TABLE, np.zeros((4, 3), np.int32), "int32"),
        (TABLE, np.array([[1, 0, 0], [np.nan, 0, 1]], np.float32), "1 of 2"),
        (TABLE, np.array([[1, 0, -1], [1, 0, 2], [1, 0, 0.5]], np.float32), "3 of 3"),
        (TABLE, np.array([[np.inf, 0, 0]], np.float32), "1 of 1"),
        (TEXT, np.zeros((4, 7), np.int32), "shape"),
        (TEXT, np.zeros((4, 6), np.float32), "float32"),
        (TEXT, np.full((4, 6), -2, np.int32), "4 of 4"),
    ],
)
def test_sets_that_do_not_fit(
    model: ModelRef, x: np.ndarray, why: str, plan_of: Callable[..., Plan]
) -> None:
    given = PublicSet(name="records", origin="public", x=x)
    with pytest.raises(InvalidInput, match=why):
        transfer_set(plan_of(model, "public"), seed=0, given=given, tokens=TOKENS)


def test_gaps_fit_a_model_that_takes_them(plan_of: Callable[..., Plan]) -> None:
    x = np.array([[np.nan, 0, -1]], np.float32)
    model = replace(TABLE, missing="mean", unknown="other")
    given = PublicSet(name="records", origin="released", x=x)
    assert len(transfer_set(plan_of(model, "public"), seed=0, given=given)) == 1

"""The planner: names, calibrated noise, and cost figures worked by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import InvalidPlan, NotAvailable
from collegium.core.plan import (
    CodecConfig,
    Evaluation,
    ModelRef,
    Plan,
    Privacy,
    Rounds,
    Simulation,
    SiteRef,
    StrategyConfig,
)
from collegium.core.plan_file import write_plan
from collegium.privacy.derive import mechanism
from collegium.server import planner
from collegium.server.plan_names import DATASETS, STRATEGIES

DIGITS = tuple(str(digit) for digit in range(10))
GLYPHS = ModelRef(name="collegium:glyph-cnn", task="classification", classes=DIGITS)


def digits(**changes: Any) -> Plan:
    values: dict[str, Any] = {
        "consortium": "four-hospitals",
        "sites": (
            SiteRef(name="north", public_records=700),
            SiteRef(name="south", public_records=300),
        ),
        "model": GLYPHS,
        "rounds": Rounds(count=60, deadline_s=90.0),
        "privacy": Privacy(epsilon=3.0, delta=1e-4, sampling_rate=0.3),
        "simulation": Simulation(dataset="sklearn:digits"),
    }
    return Plan(**(values | changes))


@pytest.fixture(scope="module")
def forecast() -> planner.Forecast:
    return planner.resolve(digits())


def test_noise_is_the_smallest_that_keeps_the_budget(forecast: planner.Forecast) -> None:
    # notes of the project, table of prototypes: 60 x 1 steps, q .3, epsilon 3, delta 1e-4: 3.02
    assert forecast.sites[0].noise_multiplier == pytest.approx(3.0223, abs=2e-3)
    assert forecast.epsilon is not None and 2.99 < forecast.epsilon <= 3.0


def test_spend_grows_round_by_round_to_the_budget(forecast: planner.Forecast) -> None:
    rounds = [at for at, _ in forecast.epsilon_by_round]
    spent = [epsilon for _, epsilon in forecast.epsilon_by_round]
    assert rounds == [1, 15, 30, 45, 60]
    assert spent == sorted(spent) and spent[-1] == forecast.epsilon


def test_normaliser_and_weight_by_hand(forecast: planner.Forecast) -> None:
    # 0.3 x 700 = 210 and 0.3 x 300 = 90 records; 700 / 1000 and 300 / 1000 of the sum
    assert [site.normaliser for site in forecast.sites] == pytest.approx([210.0, 90.0])
    assert [site.weight for site in forecast.sites] == pytest.approx([0.7, 0.3])


def test_bytes_and_work_by_hand(forecast: planner.Forecast) -> None:
    # The head reads 64 features: (64 + 1) x 10 = 650 numbers, 2 bytes up (bf16), 4 bytes down.
    assert forecast.trainable_parameters == 650
    assert (forecast.bytes_up, forecast.bytes_down) == (1300, 2600)
    assert forecast.bytes_total == (1300 + 2600) * 2 * 60
    assert forecast.record_passes == pytest.approx((210 + 90) * 60)
    assert forecast.longest_minutes == 90.0  # 60 rounds of 90 s


@pytest.mark.parametrize(("name", "size"), [("float32", 2600), ("bf16", 1300), ("int8", 654)])
def test_bytes_of_each_codec_by_hand(name: Any, size: int) -> None:
    # int8: 650 bytes and one float32 scale for the only block of 2048
    off = digits(codec=CodecConfig(name=name), privacy=Privacy(enabled=False))
    assert planner.resolve(off).bytes_up == size


def test_noise_share_by_hand() -> None:
    # Four equal sites, noise 2, clip 1, normaliser 10: sd of a site's mean 0.2, of the federated
    # mean 0.2 / sqrt(4) = 0.1; over d = 8 + 1 inputs x 4 classes = 36 numbers the norm is 6 sd.
    plan = digits(
        sites=tuple(SiteRef(name=f"s{i}", public_records=100) for i in range(4)),
        privacy=Privacy(delta=1e-4, sampling_rate=0.1),
    )
    specs = [
        mechanism(plan, site, noise_multiplier=2.0, trainable_digest="") for site in plan.sites
    ]
    assert planner._noise_share([(spec, 0.25) for spec in specs], 36) == pytest.approx(0.6)
    assert planner._noise_share([(specs[0], 1.0)], 36) == pytest.approx(1.2)


def test_mechanism_holds_plan_constants_only() -> None:
    plan = digits(rounds=Rounds(count=60, local_steps=2))
    spec = mechanism(plan, plan.site("north"), noise_multiplier=3.1, trainable_digest="sha256:x")
    assert (spec.unit, spec.relation, spec.sampler) == ("record", "add-or-remove-one", "poisson")
    assert (spec.clip_norm, spec.noise_multiplier, spec.steps) == (1.0, 3.1, 2)
    assert (spec.normaliser, spec.delta, spec.batch_cap) == (pytest.approx(210.0), 1e-4, 0)
    assert spec.trainable_digest == "sha256:x"


def test_without_privacy_there_is_no_epsilon_anywhere() -> None:
    off = planner.resolve(digits(privacy=Privacy(enabled=False)))
    assert off.epsilon is None and off.epsilon_by_round == ()
    assert {site.noise_multiplier for site in off.sites} == {0.0}
    assert {site.epsilon for site in off.sites} == {None}
    assert "privacy is off" in off.notes[0]


def test_notes_speak_of_weak_epsilon_and_of_noise_that_drowns_the_signal() -> None:
    weak = planner.resolve(digits(privacy=Privacy(epsilon=20.0, delta=1e-4, sampling_rate=0.3)))
    assert any("weak" in note for note in weak.notes)
    tiny = planner.resolve(
        digits(
            sites=(SiteRef(name="north", public_records=20),),
            privacy=Privacy(epsilon=0.5, delta=1e-4, sampling_rate=0.04),
        )
    )
    assert any("outweighs" in note for note in tiny.notes)
    assert any("less than one record" in note for note in tiny.notes)


@pytest.mark.parametrize(
    ("changes", "where", "cure"),
    [
        ({"strategy": StrategyConfig(name="fedadan")}, "[strategy] name", 'mean "fedadam"'),
        ({"strategy": StrategyConfig(name="krum")}, "[strategy] name", 'write "mean"'),
        (
            {"model": ModelRef(name="collegium:glyf-cnn", task="classification", classes=DIGITS)},
            "[model] name",
            'mean "collegium:glyph-cnn"',
        ),
        (
            {"model": replace(GLYPHS, weights="sha256:" + "0" * 64)},
            "[model] weights",
            "sha256:",
        ),
        (
            {
                "model": ModelRef(
                    name="collegium:glyph-cnn", task="classification", classes=("0", "1")
                )
            },
            "[model] classes",
            "list 10 names",
        ),
        ({"simulation": Simulation(dataset="sklearn:digit")}, "[simulation] dataset", "digits"),
        (
            {
                "simulation": Simulation(dataset="sklearn:breast_cancer"),
                "model": ModelRef(
                    name="collegium:glyph-cnn", task="classification", classes=("a", "b")
                ),
            },
            "[simulation] dataset",
            "choose a model",
        ),
    ],
)
def test_unknown_or_unfitting_names(changes: dict[str, Any], where: str, cure: str) -> None:
    with pytest.raises(InvalidPlan) as caught:
        planner.resolve(digits(**changes))
    assert [problem.where for problem in caught.value.problems] == [where]
    assert cure in caught.value.problems[0].cure


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"model": replace(GLYPHS, name="plugin:nobodys")}, "[model] name"),
        ({"model": replace(GLYPHS, task="plugin:nobodys")}, "[model] task"),
        ({"strategy": StrategyConfig(name="plugin:nobodys")}, "[strategy] name"),
    ],
)
def test_a_plug_in_that_is_not_installed_is_69(changes: dict[str, Any], key: str) -> None:
    with pytest.raises(NotAvailable, match="valid, but it cannot run here") as caught:
        planner.resolve(digits(**changes))
    assert key in caught.value.what and caught.value.exit_code == 69


@pytest.mark.parametrize(
    "changes",
    [
        {"evaluation": Evaluation(origin="private")},
        {"privacy": Privacy(delta=1e-4, unit="patient")},
        {"privacy": Privacy(delta=1e-4, relation="replace-one")},
        {"privacy": Privacy(delta=1e-4, relation="replace-special", batch_cap=500)},
    ],
)
def test_every_mechanism_fits_its_epsilon(changes: dict[str, Any]) -> None:
    forecast = planner.resolve(digits(**changes))
    assert forecast.epsilon is not None
    assert 0.99 * 3.0 < forecast.epsilon <= 3.0
    assert forecast.epsilon_by_round[-1][1] == forecast.epsilon


def test_problems_of_file_and_names_are_reported_together(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    text = write_plan(digits(strategy=StrategyConfig(name="krum")))
    path.write_text(text.replace("quorum = 1.0", "quorum = 7.0"), encoding="utf-8")
    with pytest.raises(InvalidPlan) as caught:
        planner.check(path)
    assert caught.value.source == str(path)
    assert [p.where for p in caught.value.problems] == ["[rounds] quorum", "[strategy] name"]


def test_an_epsilon_that_no_noise_can_keep_is_a_problem_of_the_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    plan = digits(privacy=Privacy(epsilon=1e-4, delta=1e-12, sampling_rate=0.3))
    path.write_text(write_plan(plan), encoding="utf-8")
    with pytest.raises(InvalidPlan) as caught:
        planner.check(path)
    assert [p.where for p in caught.value.problems] == ["[privacy] epsilon"]


def test_the_lists_of_names_are_those_of_their_rooms() -> None:
    from collegium.data.datasets import NAMES, load
    from collegium.strategies.catalog import strategy_for

    assert tuple(DATASETS) == NAMES
    for name, (classes, shape) in DATASETS.items():
        data = load(name)
        assert (len(data.classes), data.x.shape[1:]) == (classes, shape)
    for name in STRATEGIES:
        strategy_for(replace(digits(), strategy=StrategyConfig(name=name)))


@pytest.mark.parametrize("name", ["digits.toml", "breast-cancer.toml"])
def test_every_shipped_plan_can_run(name: str) -> None:
    root = Path(__file__).resolve().parents[2]
    assert planner.resolve(planner.check(root / "simulations" / "plans" / name)).epsilon

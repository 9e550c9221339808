"""Card and privacy statement: every input named, no promise that was not made, no broken markup."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.errors import ACCEPT
from collegium.core.forms import text_fault
from collegium.core.plan import Calibration, EdgeConfig, ModelRef, Plan, Rounds, SiteRef
from collegium.data.public import PublicSet
from collegium.edge.bundle import json_bytes
from collegium.edge.papers import (
    CardFacts,
    Inputs,
    card_text,
    privacy_in_words,
    privacy_statement,
)
from collegium.edge.parity_gate import Parity
from collegium.models.cards import NOTHING
from collegium.models.catalog import card

PRIVACY = {
    "guarantee": "differential privacy", "unit": "patient", "delta": 1e-5, "epsilon_max": 2.9876,
    "epsilon_max_reads": "if no person is in two sites", "epsilon_if_shared": 4.2,
    "epsilon_if_shared_reads": "if one person may be in every site",
}  # fmt: skip


def public(name: str, n: int = 10) -> PublicSet:
    return PublicSet(name=name, origin="public", x=np.zeros((n, 2), np.float32))


INPUTS = Inputs(
    transfer=public("glyphs", 500),
    calibration=public("glyphs#calibration", 64),
    parity=public("test part", 80),
    selftest=public("glyphs#selftest", 32),
)
PLAN = Plan(
    consortium="four-hospitals",
    sites=(SiteRef(name="north", public_records=300), SiteRef(name="south", public_records=300)),
    model=ModelRef(name="collegium:glyph-cnn", task="classification", classes=("0", "1")),
    rounds=Rounds(count=12),
    edge=EdgeConfig(),
)
ROW = Parity(
    recipe="int8-static", n=80, agreement=0.95, accuracy=0.9, metric_delta=-0.0125,
    metric_delta_ci=(-0.06, 0.03), auc=0.98, auc_delta=-0.001, auc_delta_ci=(-0.004, 0.002),
    calibration_error=0.04, fidelity=0.975, cosine=0.9991, size_bytes=23_425, size_ratio=3.4,
    size_ratio_global=18.6, cpu_ms=0.0168, cpu_noise=0.07, latency_ratio=1.06, latency_noise=0.02,
    verdict=ACCEPT,
    per_class=(
        {"class": "0", "n": 40, "teacher_recall": 0.95, "recall": 0.9, "agreement": 0.9},
        {"class": "1", "n": 0, "teacher_recall": None, "recall": None, "agreement": None},
    ),
)  # fmt: skip
FACTS = CardFacts(
    inputs=INPUTS,
    privacy=PRIVACY,
    teacher={"accuracy": 0.9125, "auc": 0.981},
    base=card("collegium:glyph-cnn"),
    student="cnn:tiny",
    student_weights=card("cifar:resnet20"),
    parameters=25_000,
    distillation={"loss": "kl", "temperature": 4.0},
    remark="takes 1.06 times the CPU time of fp32",
    audit={"passed": True, "canaries": 400, "claimed_epsilon": 3.0},
    version=7,
)


def written(**changes: object) -> str:
    simulated = bool(changes.pop("simulated", False))
    facts = replace(FACTS, **changes)  # type: ignore[arg-type]
    rows = [replace(ROW, recipe="fp32"), ROW]
    return card_text(PLAN, ROW, rows, simulated=simulated, facts=facts)


def test_the_card_tells_figures_with_intervals_origins_and_promise() -> None:
    text = written()
    for told in (
        "# four-hospitals: classification on a device, version 7",
        "| accuracy | 0.900 | 0.912 | -0.013 (-0.060 to +0.030) |",
        "| AUC | 0.980 | 0.981 | -0.001 (-0.004 to +0.002) |",
        "| calibration error | 0.040 | not measured |  |",
        "| 0 | 40 | 0.900 | 0.950 | 0.900 |",
        "| 1 | 0 | not measured | not measured | not measured |",
        "| transfer | glyphs | public | 500 |",
        "Not used: temperature, early stopping, field comparison.",
        "18.6 times smaller",
        "the open model collegium:glyph-cnn, fine-tuned together by 2 sites over 12 rounds",
        "loss kl, temperature 4.0",
        "cifar:resnet20",
        "1.06 times",
        "each patient: epsilon 2.99 at delta 1e-05 if no person is in two sites; 4.2 if one",
        "400 canaries, did not contradict the claim of epsilon 3.",
        "python device.py verify BUNDLE --key PUBLISHER.pem",
        "It must name version 7.",
    ):
        assert told in text, told
    assert "guarantee.**" not in text and "Data-free" not in text
    assert text == written() and text.endswith("\n") and "\n\n\n" not in text


def test_a_simulated_run_promises_nothing() -> None:
    text = written(simulated=True)
    assert "**Simulated: no privacy guarantee.**" in text
    assert "Simulated: no privacy guarantee. The noise came from a seed" in text
    assert "2.99" not in text  # an accounted epsilon would read as a promise


def test_privacy_switched_off_says_so() -> None:
    words = privacy_in_words({"guarantee": "none: privacy was switched off"}, simulated=False)
    assert words == "none: privacy was switched off."
    assert privacy_in_words({}, simulated=False).startswith("not known")


@pytest.mark.parametrize(
    ("name", "free"),
    [("synthetic:noise", True), ("synthetic:bounds", True), ("collegium:glyphs", False)],
)
def test_a_student_of_made_up_records_is_labelled(name: str, free: bool) -> None:
    made = PublicSet(name=name, origin="synthetic", x=np.zeros((9, 2)))
    inputs = replace(INPUTS, transfer=made)
    assert ("**Data-free student:**" in written(inputs=inputs)) == free
    assert privacy_statement({}, inputs, simulated=False)["data_free"] is free
    assert not replace(inputs, transfer=None).data_free


def test_calibration_records_that_set_nothing_are_not_listed() -> None:
    exact = replace(INPUTS, calibrated=False)
    text, found = written(inputs=exact), privacy_statement({}, exact, simulated=False)
    assert "| calibration |" not in text and "Not used: calibration," in text
    assert "calibration" not in found["edge_inputs"]
    assert "| calibration |" in written()


def test_a_temperature_of_the_sites_is_not_hushed() -> None:
    line = "fitted a threshold and a temperature into the global model"
    plan = replace(PLAN, calibration=Calibration())
    assert line in card_text(plan, ROW, [ROW], simulated=False, facts=FACTS)
    assert "fitted a" not in written()
    plan = replace(PLAN, calibration=Calibration(temperature=False))
    assert "fitted a threshold into" in card_text(plan, ROW, [ROW], simulated=False)


def test_intervals_of_patients_are_said_to_be_too_narrow() -> None:
    plan = replace(PLAN, privacy=replace(PLAN.privacy, unit="patient"))
    assert "they are too narrow" in card_text(plan, ROW, [ROW], simulated=False)
    assert "too narrow" not in written()


def test_a_student_without_open_weights_started_from_none() -> None:
    random = replace(card("cifar:resnet20"), weights=None, trained_on=NOTHING)
    text = written(student_weights=random)
    assert "started from cifar" not in text and "without any open weights" in text
    assert "the student started from cifar:resnet20: trained on CIFAR-10" in written()


def test_a_custom_run_names_no_open_model_as_its_base() -> None:
    text = written(custom=True, base=None)
    assert "global model: custom" in text and "the open model collegium:glyph-cnn" not in text


def test_a_contradicted_claim_is_not_hushed() -> None:
    audit = {"passed": False, "canaries": 400, "claimed_epsilon": 3.0}
    assert "CONTRADICTED THE CLAIM" in written(audit=audit)
    assert "Leakage audit of the run: not run." in written(audit="not run")


def test_little_is_known_and_nothing_is_invented() -> None:
    bare = replace(
        ROW, accuracy=None, metric_delta=None, metric_delta_ci=None, auc=None, auc_delta=None,
        auc_delta_ci=None, calibration_error=None, per_class=(), size_ratio_global=None,
    )  # fmt: skip
    text = card_text(PLAN, bare, [bare], simulated=False)
    assert "| accuracy | not measured | not measured |  |" in text
    assert "None" not in text and "nan" not in text


@given(st.text(max_size=30).filter(lambda name: name != "b" and not text_fault(name)))
def test_no_name_breaks_the_page(name: str) -> None:
    plan = replace(PLAN, consortium=name, model=replace(PLAN.model, classes=(name, "b")))
    text = card_text(plan, ROW, [ROW], simulated=False)
    first = text.split("\n")[0]
    assert first.endswith(": classification on a device, version 1")
    assert "<" not in first.replace("\\<", "") and "`" not in first.replace("\\`", "")
    assert [line for line in text.split("\n") if line.startswith("# ")] == [first]


def test_the_statement_names_the_origin_of_every_input() -> None:
    used = replace(INPUTS, temperature=public("t"), early_stopping=public("e"), field=public("f"))
    found = privacy_statement(PRIVACY, used, simulated=False)
    assert set(found["edge_inputs"]) == {
        "transfer", "calibration", "temperature", "early_stopping", "selftest", "parity",
        "field_comparison",
    }  # fmt: skip
    for about in found["edge_inputs"].values():
        assert about["origin"] == "public" and about["sha256"].startswith("sha256:")
    assert found["edge_inputs_unused"] == [] and found["statement"] == PRIVACY
    assert found["edge_cost"].startswith("none")
    less = privacy_statement(PRIVACY, INPUTS, simulated=True)
    assert less["edge_inputs_unused"] == ["temperature", "early_stopping", "field_comparison"]
    assert less["in_words"].startswith("simulated: no privacy guarantee")
    assert json.loads(json_bytes(less)) == less


@pytest.mark.parametrize("origin", ["synthetic", "released"])
def test_other_origins_are_told(origin: str) -> None:
    test = PublicSet(name="t", origin=origin, x=np.zeros((3, 2)))  # type: ignore[arg-type]
    text = written(inputs=replace(INPUTS, parity=test))
    assert f"| parity | t | {origin} | 3 |" in text
    assert ("The test part is synthetic" in text) == (origin == "synthetic")

"""parity.json: everything that was measured and decided, and the audit as it may be told."""

import json
import platform
from dataclasses import replace

import pytest

from collegium.core.errors import ACCEPT, InvalidInput
from collegium.edge.parity_gate import Limits, Parity
from collegium.edge.parity_report import leakage_quote, parity_report, undefined
from collegium.edge.timing import Timing

FP32 = Parity(
    recipe="fp32", n=10, agreement=0.9, accuracy=0.8, metric_delta=-0.1,
    metric_delta_ci=(-0.3, 0.1), auc=0.9, auc_delta=-0.01, auc_delta_ci=(-0.02, 0.0),
    size_bytes=100, cpu_ms=1.0, cpu_noise=0.1, latency_ratio=1.0, verdict=ACCEPT, sha256="a",
)  # fmt: skip
SLOW = replace(FP32, recipe="int8", latency_ratio=1.5, sha256="b")
TIMING = Timing(
    cpu_ms=1.0, noise=0.1, ratio=1.0, ratio_noise=0.0, blocks=31, calls=4, reference="a",
    machine={"architecture": "x86_64"},
)  # fmt: skip
LEAKAGE = {
    "canaries": 400, "in": 203, "claimed_epsilon": 3.0, "delta": 1e-4, "confidence": 0.95,
    "charged": "epsilon 3 on the shadow's own ledger", "strict": "one_run and the claimed curve",
    "attacks": {"white": {"one_run": 0.4, "auroc": 0.61, "tpr": 0.02, "contradicts_claim": False}},
    "passed": True,
}  # fmt: skip
AUDIT = {
    "tests": [{"name": "noise", "verdict": "passed", "statistic": 298, "p_value": 0.123456}],
    "leakage": LEAKAGE, "passed": True, "attests": "honest software", "significance": 0.01,
}  # fmt: skip


def report(**changes: object) -> dict[str, object]:
    told = {
        "wanted": "auto", "prefer": "speed", "sets": {"parity": {"origin": "public"}},
        "timings": {"a": TIMING, "b": replace(TIMING, calls=8)},
    }  # fmt: skip
    limits = Limits(min_agreement=0.5, max_accuracy_drop=0.5)
    return parity_report([FP32, SLOW], FP32, limits, **{**told, **changes})  # type: ignore[arg-type]


def test_the_report_holds_rows_rule_limits_machine_and_methods() -> None:
    found = report(teacher={"accuracy": 0.9}, facts={"student": "cnn:tiny"})
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert [row["recipe"] for row in found["candidates"]] == ["fp32", "int8"]  # type: ignore[attr-defined]
    assert found["machine"] == {"architecture": "x86_64"}
    assert found["timing"]["blocks"] == {"fp32": [31, 4], "int8": [31, 8]}  # type: ignore[index]
    assert found["leakage_audit"] == "not run" and found["remark"] == ""
    assert "Newcombe" in found["intervals"]["accuracy"]  # type: ignore[index]
    assert found["undefined"] == [] and found["student"] == "cnn:tiny"
    assert report() == report()


def test_a_slow_choice_says_so() -> None:
    limits = Limits(min_agreement=0, max_accuracy_drop=1)
    found = parity_report(
        [FP32, SLOW], SLOW, limits, wanted="int8", prefer="speed", sets={}, timings={}
    )
    assert "1.50 times" in found["remark"] and found["machine"] == {}


def test_the_devices_processor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert report()["target"] == "here" and report(target="x86")["rule"] == report()["rule"]
    assert report(target="arm")["target"] == "arm"
    assert "not this machine's" in str(report(target="arm")["rule"])
    assert "independent" in report()["intervals"]["assumption"]  # type: ignore[index]


def test_undefined_figures_are_named() -> None:
    assert undefined([replace(FP32, auc_delta=None)])[0].startswith("change of AUC")
    told = undefined([replace(FP32, accuracy=None, auc=None, auc_delta=None)])
    assert [line.partition(":")[0].split(",")[0] for line in told] == ["accuracy", "AUC"]


@pytest.mark.parametrize("audit", [None, {}, AUDIT | {"leakage": None}, {"leakage": "not run"}])
def test_an_audit_without_canaries_was_not_run(audit: dict[str, object] | None) -> None:
    assert leakage_quote(audit) == "not run"


def test_the_audit_is_quoted_without_what_depends_on_records() -> None:
    found = leakage_quote(AUDIT)
    assert isinstance(found, dict)
    assert found["passed"] is True and found["claimed_epsilon"] == 3.0
    assert found["attacks"] == {
        "white": {"one_run": 0.4, "auroc": 0.61, "contradicts_claim": False}
    }
    text = json.dumps(found)
    for secret in ("298", "0.123456", "203"):
        assert secret not in text


@pytest.mark.parametrize("broken", [{"canaries": 1}, [], "all is well", 3])
def test_a_broken_audit_is_refused(broken: object) -> None:
    with pytest.raises(InvalidInput, match="audit"):
        leakage_quote({"leakage": broken})

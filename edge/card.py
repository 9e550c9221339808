"""card.md: what the model is for, where it comes from, how good it is, and what is promised."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..core.plan import Plan
from ..models.cards import ModelCard
from .parity_gate import Interval, Parity
from .uses import Inputs

SIMULATED = "**Simulated: no privacy guarantee.** The noise was seeded."
DATA_FREE = (
    "**Data-free student:** it learned from records that were made up without any data. Expect it "
    "to be worse on real records than a student that saw public ones."
)
CUSTOM = (
    "- global model: custom. Its sites, model or strategy were objects that the plan does not "
    "describe, so that the plan's {name} need not be what was trained"
)
CALIBRATED = (
    "- the sites' own scores, counted in bins, fitted {what} into the global model after training "
    "([calibration]); the run's statement covers them"
)
UNTRAINED = "nothing"  # how a card says that an open model is architecture alone
PATIENTS = (
    " They take records as independent: where one patient has several in the test part, they are "
    "too narrow."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What the card tells beside the plan and the figures; what is not known is left out.

    ``privacy`` is the run's statement, ``teacher`` the global model's figures on the test part,
    ``base`` the open model's card and ``student_weights`` that of the student's, ``distillation``
    the settings as plain values, ``remark`` what must be said of the choice, ``audit`` what
    ``leakage_quote`` gives; ``custom``: the run was not all the plan's.
    """

    inputs: Inputs | None = None
    privacy: Mapping[str, Any] = field(default_factory=dict[str, Any])
    teacher: Mapping[str, float] = field(default_factory=dict[str, float])
    base: ModelCard | None = None
    student: str = ""
    student_weights: ModelCard | None = None
    parameters: int = 0
    global_bytes: int = 0
    distillation: Mapping[str, Any] | None = None
    remark: str = ""
    audit: str | Mapping[str, Any] = "not run"
    version: int = 1
    custom: bool = False


def card_text(
    plan: Plan,
    chosen: Parity,
    rows: Sequence[Parity],
    *,
    simulated: bool,
    facts: CardFacts | None = None,
) -> str:
    """Return card.md (Mitchell et al., FAT* 2019); the same arguments give the same text."""
    told = facts or CardFacts()
    parts = (
        _head(plan, told, simulated),
        _origin(plan, told),
        _figures(plan, chosen, told),
        _classes(chosen),
        _candidates(rows, chosen),
        _limits(plan, told),
        _privacy(told, simulated),
        _verify(told),
    )
    lines = [line for part in parts for line in (*part, "")]
    return "\n".join(lines[:-1]) + "\n"


def privacy_in_words(privacy: Mapping[str, Any], *, simulated: bool) -> str:
    """Return the run's promise in one paragraph: epsilon with its unit, or that there is none."""
    if simulated:
        return (
            "simulated: no privacy guarantee. The noise came from a seed, so whoever knows the "
            "seed can take it out again; any epsilon in privacy.json only shows the accounting."
        )
    if "epsilon_max" not in privacy:
        return f"{privacy.get('guarantee', 'not known: privacy.json names no epsilon')}."
    unit = "patient" if privacy.get("unit") == "patient" else "record"
    words = (
        f"differential privacy for each {unit}: epsilon {privacy['epsilon_max']:.3g} at delta "
        f"{privacy['delta']:g} {privacy.get('epsilon_max_reads', '')}".rstrip()
    )
    if "epsilon_if_shared" in privacy:
        words += (
            f"; {privacy['epsilon_if_shared']:.3g} {privacy.get('epsilon_if_shared_reads', '')}"
        )
    return (
        words.rstrip() + ". Distillation, quantization and all figures added nothing to it: they "
        "used data that are not private."
    )


def _head(plan: Plan, told: CardFacts, simulated: bool) -> Iterator[str]:
    yield f"# {_plain(plan.consortium)}: {plan.model.task} on a device, version {told.version}"
    if simulated:
        yield ""
        yield SIMULATED
    if told.inputs is not None and told.inputs.data_free:
        yield ""
        yield DATA_FREE
    yield ""
    yield "## What it is for"
    yield ""
    yield f"- tells apart: {', '.join(_plain(name) for name in plan.model.classes)}"
    yield "- input: raw records as the sites' readers give them (input.json); preprocessing is in"
    yield "  the file"
    yield "- output: one logit per class; the device turns them into probabilities"
    yield "- not for: records of another kind, or decisions that nobody looks at"


def _origin(plan: Plan, told: CardFacts) -> Iterator[str]:
    yield "## Where it comes from"
    yield ""
    if told.custom:
        yield CUSTOM.format(name=plan.model.name)
    else:
        yield (
            f"- global model: the open model {plan.model.name}, fine-tuned together by "
            f"{_count(len(plan.sites), 'site')} over {_count(plan.rounds.count, 'round')}"
        )
    if told.base is not None:
        yield f"- open model: trained on {told.base.trained_on}; licence {told.base.license}"
    yield from _fitted(plan)
    if told.student:
        size = f", {told.parameters:,} parameters" if told.parameters else ""
        yield f"- student: {told.student}{size}"
    if told.student_weights is not None:
        yield _start(told.student_weights)
    if told.distillation is not None:
        settings = ", ".join(f"{key} {value}" for key, value in told.distillation.items())
        yield f"- distillation: {settings}"
    if told.inputs is None:
        return
    yield ""
    yield "| data used after training | set | origin | records |"
    yield "|---|---|---|--:|"
    for use, about in told.inputs.origins().items():
        name = _plain(about["name"])
        yield f"| {use.replace('_', ' ')} | {name} | {about['origin']} | {about['records']} |"
    unused = [use.replace("_", " ") for use in told.inputs.unused()]
    if unused:
        yield ""
        yield f"Not used: {', '.join(unused)}."


def _fitted(plan: Plan) -> Iterator[str]:
    """Say what the sites' counts fitted, which "temperature" among the sets does not mean."""
    asked = plan.calibration
    if asked is None:
        return
    parts = ["a threshold"] * (asked.criterion != "none") + ["a temperature"] * asked.temperature
    yield CALIBRATED.format(what=" and ".join(parts))


def _start(own: ModelCard) -> str:
    words = f"{own.name}: trained on {own.trained_on}; licence {own.license}"
    if own.trained_on.startswith(UNTRAINED):
        return f"- the student has the layers of {words}. It started without any open weights"
    return f"- the student started from {words}"


def _figures(plan: Plan, row: Parity, told: CardFacts) -> Iterator[str]:
    yield "## How good it is"
    yield ""
    yield (
        f"On {row.n} public records, the same for both models; intervals are 95 %."
        + PATIENTS * (plan.privacy.unit == "patient")
    )
    yield ""
    yield "| | this model | global model | difference |"
    yield "|---|--:|--:|--:|"
    teacher = told.teacher
    values = (
        ("accuracy", row.accuracy, teacher.get("accuracy"), row.metric_delta, row.metric_delta_ci),
        ("AUC", row.auc, teacher.get("auc"), row.auc_delta, row.auc_delta_ci),
        ("calibration error", row.calibration_error, teacher.get("calibration_error"), None, None),
    )
    for name, own, other, delta, interval in values:
        yield f"| {name} | {_share(own)} | {_share(other)} | {_difference(delta, interval)} |"
    yield ""
    yield f"- agreement with the global model: {row.agreement:.3f}"
    yield f"- agreement with its own fp32: {row.fidelity:.3f}, mean cosine {row.cosine:.4f}"
    size = f"- recipe: {row.recipe}, {row.size_bytes} bytes"
    if row.size_ratio_global:
        size += f", {row.size_ratio_global:.1f} times smaller than the global model's file"
    yield size
    yield f"- {row.cpu_ms:.3f} ms of CPU time for one record on the publisher's machine"
    if told.remark:
        yield f"- {told.remark}"


def _classes(row: Parity) -> Iterator[str]:
    if not row.per_class:
        return
    yield "| class | records | found | found by the global model | same answer |"
    yield "|---|--:|--:|--:|--:|"
    for each in row.per_class:
        yield (
            f"| {_plain(each['class'])} | {each['n']} | {_share(each['recall'])} | "
            f"{_share(each['teacher_recall'])} | {_share(each['agreement'])} |"
        )


def _candidates(rows: Sequence[Parity], chosen: Parity) -> Iterator[str]:
    yield "| candidate | bytes | agreement | CPU ms | of fp32 | gate |"
    yield "|---|--:|--:|--:|--:|---|"
    for row in rows:
        verdict = "passed" if row.verdict.ok else row.verdict.code
        mark = " (shipped)" if row.recipe == chosen.recipe else ""
        yield (
            f"| {row.recipe}{mark} | {row.size_bytes} | {row.agreement:.3f} | {row.cpu_ms:.3f} | "
            f"{row.latency_ratio:.2f} | {verdict} |"
        )


def _limits(plan: Plan, told: CardFacts) -> Iterator[str]:
    yield "## Limits"
    yield ""
    yield "- The figures are those of one public test part; another population may differ."
    yield "- Small sites and rare classes may be served worse: read the figures by class."
    if plan.model.task == "classification":
        yield "- It always answers with one of its classes, whatever it is shown."
    if told.inputs is not None and told.inputs.parity.origin == "synthetic":
        yield "- The test part is synthetic: how it does on real records was not measured."


def _privacy(told: CardFacts, simulated: bool) -> Iterator[str]:
    yield "## Privacy"
    yield ""
    words = privacy_in_words(told.privacy, simulated=simulated)
    yield words[0].upper() + words[1:]
    audit = told.audit
    if isinstance(audit, str):
        found = audit
    else:
        passed = "did not contradict the claim" if audit["passed"] else "CONTRADICTED THE CLAIM"
        found = f"{audit['canaries']} canaries, {passed} of epsilon {audit['claimed_epsilon']:.3g}"
    yield ""
    yield f"Leakage audit of the run: {found}."
    yield ""
    yield "What was promised to whom is in privacy.json; all figures are in parity.json."


def _verify(told: CardFacts) -> Iterator[str]:
    yield "## How to verify"
    yield ""
    yield "Get the publisher's public key from the consortium, not from where this file lay. Then:"
    yield ""
    yield "    python device.py verify BUNDLE --key PUBLISHER.pem"
    yield ""
    yield f"It must name version {told.version}. A file that was not signed is never loaded."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _share(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.3f}"


def _difference(value: float | None, interval: Interval | None) -> str:
    if value is None:
        return ""
    ends = f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else ""
    return f"{value:+.3f}{ends}"


def _plain(text: object) -> str:
    """Return a name that cannot break the page: one line, no table bars, no markup."""
    kept = " ".join(str(text).split())
    return "".join(f"\\{sign}" if sign in "|\\`*_<[]#" else sign for sign in kept)

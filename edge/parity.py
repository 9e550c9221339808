"""The parity gate: every candidate is measured on this machine, one may ship, all are reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..core.digest import sha256_hex
from ..core.errors import ACCEPT, InvalidInput, Verdict
from ..models.evaluate import finite_outputs
from .choosing import RULES, choose, remark, rule_for
from .device import infer, open_session
from .device.session import records_at_once
from .parity_figures import Figures, compare_outputs, fidelity, teacher_of
from .parity_gate import Limits, Parity, gate, limits_of
from .timing import Timing, time_candidates

__all__ = [
    "RULES",
    "Limits",
    "Parity",
    "answers",
    "choose",
    "gate",
    "is_timed",
    "judge",
    "limits_of",
    "measure",
    "remark",
    "rule_for",
    "time_all",
    "together",
]

AT_ONCE = 1024  # records in one call, where nobody says how many fit into memory
_DIGITS = 6  # of shares and differences in the report


def measure(
    candidates: Mapping[str, bytes],
    teacher: NDArray[Any],
    x: NDArray[np.generic],
    y: NDArray[np.int64] | None,
    limits: Limits,
    *,
    at_once: int = AT_ONCE,
    classes: Sequence[str] = (),
    global_bytes: int = 0,
    known: Mapping[str, Timing] | None = None,
) -> list[Parity]:
    """Return one row per candidate (ONNX bytes by recipe; the first one is fp32).

    ``teacher`` holds the global model's logits (n, classes) on raw records ``x`` (n, ...), or
    its answers (n,), which leave AUC undefined; ``y`` (n,) the true classes where known;
    ``at_once`` records, at most, go through a session together, and no more than on a device.
    ``global_bytes`` is the global model's file. Timings in ``known`` (by digest of the file, see
    ``time_all``) are taken as they are.
    Raises ``InvalidInput`` when records, answers and labels do not fit together.
    """
    _require_fit(teacher, x, y)
    timings = known if known is not None and is_timed(candidates, known) else None
    timings = timings or time_all(candidates, x)
    beside = teacher_of(finite_outputs(teacher), y)
    own: NDArray[Any] | None = None  # the outputs of fp32
    rows: list[Parity] = []
    for recipe, model in candidates.items():
        outputs = finite_outputs(answers(open_session(model), x, together(recipe, x, at_once)))
        own = outputs if own is None else own
        names = classes or [str(index) for index in range(outputs.shape[1])]
        row = _row(
            recipe,
            model,
            compare_outputs(outputs, beside, y, names),
            fidelity(outputs, own),
            timings[sha256_hex(model)],
            n=len(x),
        )
        first_bytes = rows[0].size_bytes if rows else row.size_bytes
        row = replace(
            row,
            size_ratio=round(first_bytes / row.size_bytes, 4),
            size_ratio_global=round(global_bytes / len(model), 4) if global_bytes else None,
            verdict=judge(row, limits, quantized=bool(rows)),
        )
        rows.append(row)
    return rows


def judge(row: Parity, limits: Limits, *, quantized: bool) -> Verdict:
    """Return whether a measured candidate passes; a ``quantized`` one must follow its own fp32."""
    return gate(
        row.agreement,
        row.metric_delta,
        limits,
        auc_delta=row.auc_delta,
        fidelity=row.fidelity if quantized else None,
        size_bytes=row.size_bytes,
    )


def time_all(candidates: Mapping[str, bytes], x: NDArray[np.generic]) -> dict[str, Timing]:
    """Return the timing of each candidate on the first of ``x`` (n, ...), by digest of its file.

    Equal files are timed once. Stored beside a run and given to ``measure`` as ``known``, the
    timings make the same inputs give the same bundle.
    """
    files = {sha256_hex(model): model for model in candidates.values()}
    sessions = {digest: open_session(model) for digest, model in files.items()}
    return time_candidates(sessions, x[:1])


def is_timed(candidates: Mapping[str, bytes], known: Mapping[str, Timing]) -> bool:
    """Return whether all candidates were timed, and together: ratios need one reference."""
    digests = [sha256_hex(model) for model in candidates.values()]
    return all(each in known and known[each].reference == digests[0] for each in digests)


def answers(
    session: ort.InferenceSession, x: NDArray[np.generic], at_once: int = AT_ONCE
) -> NDArray[np.float32]:
    """Return the logits (n, classes) of raw records ``x`` (n, ...), computed in parts."""
    starts = range(0, max(1, len(x)), at_once)
    return np.concatenate([infer(session, x[start : start + at_once]) for start in starts])


def together(recipe: str, x: NDArray[np.generic], at_once: int) -> int:
    """Return how many of ``x`` (n, ...) go through a session together: one, where a device does.

    A dynamically quantized file answers a record otherwise beside others; a device asks it record
    by record, and so does every figure that is quoted of it.
    """
    on_device = records_at_once(x.shape[1:], recipe)
    return 1 if on_device == 1 else at_once


def _row(
    recipe: str,
    model: bytes,
    found: Figures,
    beside_own: tuple[float, float],
    took: Timing,
    *,
    n: int,
) -> Parity:
    gain, auc_gain = found.accuracy_gain, found.auc_gain
    return Parity(
        recipe=recipe,
        n=n,
        agreement=found.agreement,
        accuracy=found.accuracy,
        metric_delta=None if gain is None else gain.value,
        metric_delta_ci=None if gain is None else _rounded(gain.interval),
        auc=_round(found.auc),
        auc_delta=None if auc_gain is None else _round(auc_gain.value),
        auc_delta_ci=None if auc_gain is None else _rounded(auc_gain.interval),
        calibration_error=_round(found.calibration_error),
        fidelity=beside_own[0],
        cosine=round(beside_own[1], _DIGITS),
        size_bytes=len(model),
        cpu_ms=took.cpu_ms,
        cpu_noise=took.noise,
        latency_ratio=took.ratio,
        latency_noise=took.ratio_noise,
        per_class=found.per_class,
        sha256=sha256_hex(model),
        verdict=ACCEPT,
    )


def _require_fit(
    teacher: NDArray[Any], x: NDArray[np.generic], y: NDArray[np.int64] | None
) -> None:
    lengths = {len(x), len(teacher), len(x) if y is None else len(y)}
    outside = (
        y is not None
        and teacher.ndim == 2
        and len(y) > 0
        and not 0 <= int(y.min()) <= int(y.max()) < teacher.shape[1]
    )
    if lengths != {len(x)} or len(x) == 0 or outside:
        raise InvalidInput(
            "the test part does not fit the model",
            why=f"{len(x)} records, {len(teacher)} answers of the global model and "
            f"{'no' if y is None else len(y)} labels"
            + (", some of them of no class of the plan" if outside else ""),
            cure="give a test part with one label per record, each a class of the plan",
        )


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _rounded(interval: tuple[float, float]) -> tuple[float, float]:
    return (round(interval[0], _DIGITS), round(interval[1], _DIGITS))

"""The parity gate: every candidate is measured on this machine, one may ship, all are reported."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..core.errors import ACCEPT, GateFailed, Verdict, refuse
from .device import infer, open_session

BLOCKS = 31  # interleaved timing blocks per candidate
CALLS = 20  # predictions per block
AT_ONCE = 1024  # records in one call, where nobody says how many fit into memory
NEGLIGIBLE_MS = 0.1  # CPU time per answer under which bytes matter more than time
LEAST_TOLERANCE = 0.05  # relative; below it no clock of a shared machine tells two apart
RULE = (
    "of the candidates that pass the gate: where every one answers within "
    f"{NEGLIGIBLE_MS} ms of CPU time (one thread, one record), the smallest file; otherwise the "
    "fastest, and none that is slower than fp32 by more than the measured noise"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The plan's limits: least agreement with the global model, largest loss of accuracy."""

    min_agreement: float
    max_accuracy_drop: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """One candidate as measured: everything that choice and report need.

    ``agreement`` with the teacher on ``n`` records and ``accuracy`` there (None without
    labels); ``metric_delta`` is accuracy minus the teacher's; ``cpu_ms`` the median CPU time of
    one answer, ``cpu_noise`` its relative spread between blocks, ``latency_ratio`` to fp32.
    """

    recipe: str
    n: int
    agreement: float
    accuracy: float | None
    metric_delta: float | None
    size_bytes: int
    cpu_ms: float
    cpu_noise: float
    latency_ratio: float
    verdict: Verdict

    def row(self) -> dict[str, Any]:
        """Return the candidate as plain values, for parity.json and result.json."""
        return asdict(self)


def measure(
    candidates: Mapping[str, bytes],
    teacher_labels: NDArray[np.int64],
    x: NDArray[np.generic],
    y: NDArray[np.int64] | None,
    limits: Limits,
    *,
    at_once: int = AT_ONCE,
) -> list[Parity]:
    """Return one row per candidate (ONNX bytes by recipe; the first one is fp32).

    ``teacher_labels`` (n,) are the global model's answers on raw records ``x`` (n, ...), ``y``
    (n,) the true classes where known; ``at_once`` of them go through a session together.
    """
    records = x.astype(np.float32)
    sessions = {recipe: open_session(model) for recipe, model in candidates.items()}
    times = cpu_times(sessions, records[:1])
    reference = next(iter(times.values()))[0]
    truth = None if y is None else float((teacher_labels == y).mean())
    rows: list[Parity] = []
    for recipe, session in sessions.items():
        labels = answers(session, records, at_once).argmax(axis=1)
        agreement = float((labels == teacher_labels).mean())
        accuracy = None if y is None else float((labels == y).mean())
        delta = None if accuracy is None or truth is None else accuracy - truth
        milliseconds, noise = times[recipe]
        rows.append(
            Parity(
                recipe=recipe,
                n=len(records),
                agreement=agreement,
                accuracy=accuracy,
                metric_delta=delta,
                size_bytes=len(candidates[recipe]),
                cpu_ms=round(milliseconds, 5),
                cpu_noise=round(noise, 4),
                latency_ratio=round(milliseconds / reference, 4),
                verdict=gate(agreement, delta, limits),
            )
        )
    return rows


def answers(
    session: ort.InferenceSession, x: NDArray[np.generic], at_once: int = AT_ONCE
) -> NDArray[np.float32]:
    """Return the logits (n, classes) of raw records ``x`` (n, ...), computed in parts."""
    starts = range(0, max(1, len(x)), at_once)
    return np.concatenate([infer(session, x[start : start + at_once]) for start in starts])


def gate(agreement: float, metric_delta: float | None, limits: Limits) -> Verdict:
    """Return whether a candidate is close enough to the global model."""
    if not agreement >= limits.min_agreement:
        return refuse(
            "agreement",
            f"agrees with the global model in {agreement:.3f}, the plan asks for "
            f"{limits.min_agreement}",
            "a larger student or transfer set, or another limit in [edge]",
        )
    if metric_delta is not None and not -metric_delta <= limits.max_accuracy_drop:
        return refuse(
            "accuracy",
            f"loses {-metric_delta:.3f} of accuracy, the plan allows {limits.max_accuracy_drop}",
            "a larger student or transfer set, or another limit in [edge]",
        )
    return ACCEPT


def choose(rows: Sequence[Parity], wanted: str = "auto") -> Parity:
    """Return the candidate that ships: by ``RULE``, or the ``wanted`` one if it passes.

    The first row is fp32. Raises ``GateFailed`` when none may ship.
    """
    allowed = [row for row in rows if row.verdict.ok and wanted in ("auto", row.recipe)]
    if wanted == "auto" and not all(row.cpu_ms <= NEGLIGIBLE_MS for row in allowed):
        tolerance = max(LEAST_TOLERANCE, *(row.cpu_noise for row in rows))
        limit = rows[0].cpu_ms * (1 + tolerance)
        allowed = [row for row in allowed if row.cpu_ms <= limit]
        allowed.sort(key=lambda row: row.cpu_ms)
    else:
        allowed.sort(key=lambda row: row.size_bytes)
    if not allowed:
        reasons = "; ".join(f"{row.recipe}: {row.verdict.reason or 'too slow'}" for row in rows)
        raise GateFailed(
            "no edge candidate passed the parity gate",
            why=reasons,
            cure="use a larger student or transfer set, or other limits in [edge]",
        )
    return allowed[0]


def cpu_times(
    sessions: Mapping[str, ort.InferenceSession], record: NDArray[np.float32]
) -> dict[str, tuple[float, float]]:
    """Return median CPU milliseconds of one answer, and its relative spread, per session.

    Blocks of calls are interleaved, so that a busy machine slows all candidates alike; thread
    CPU time, because wall time measures the neighbours. The spread is half the interquartile
    range of the block times over their median.
    """
    blocks: dict[str, list[float]] = {recipe: [] for recipe in sessions}
    for turn in range(BLOCKS + 1):
        for recipe, session in sessions.items():
            began = time.thread_time()
            for _ in range(CALLS):
                infer(session, record)
            if turn:  # the first block warms caches
                blocks[recipe].append((time.thread_time() - began) * 1000 / CALLS)
    found: dict[str, tuple[float, float]] = {}
    for recipe, values in blocks.items():
        low, middle, high = np.percentile(values, [25, 50, 75])
        found[recipe] = (float(middle), float((high - low) / 2 / max(middle, 1e-9)))
    return found

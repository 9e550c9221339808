"""One candidate as measured, and the limits of the plan that decide whether it may ship."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ..core.errors import ACCEPT, Verdict, refuse
from ..core.plan_edge import EdgeConfig

Interval = tuple[float, float]
CURE = "a larger student or transfer set, or another limit in [edge]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The plan's limits on what a candidate may lose.

    Least agreement with the global model and (quantized ones) with its own fp32, largest loss of
    accuracy and AUC, largest file in bytes (0: any).
    """

    min_agreement: float
    max_accuracy_drop: float
    min_fidelity: float = 0.0
    max_auc_drop: float = 1.0
    max_size_bytes: int = 0

    def row(self) -> dict[str, Any]:
        """Return the limits as plain values, for parity.json."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """One candidate as measured: everything that choice and report need.

    ``agreement`` with the teacher on ``n`` records; ``accuracy`` and ``auc`` there, and
    ``metric_delta`` and ``auc_delta``, what is gained over the teacher, each with a 95 %
    interval; None where they are undefined (no labels, a class that does not occur).
    ``fidelity`` is the agreement with the candidate's own fp32, ``cosine`` the mean cosine of
    their outputs. ``per_class`` holds n, recall, the teacher's recall and agreement by class.
    ``cpu_ms`` is the median CPU time of one answer, ``cpu_noise`` its relative spread between
    blocks, ``latency_ratio`` to fp32 in the same blocks, ``latency_noise`` the spread of that.
    ``size_ratio`` is fp32's bytes over this file's, ``size_ratio_global`` the global model's.
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
    latency_noise: float = 0.0
    metric_delta_ci: Interval | None = None
    auc: float | None = None
    auc_delta: float | None = None
    auc_delta_ci: Interval | None = None
    calibration_error: float | None = None
    fidelity: float = 1.0
    cosine: float = 1.0
    size_ratio: float = 1.0
    size_ratio_global: float | None = None
    per_class: tuple[dict[str, Any], ...] = ()
    sha256: str = ""

    def row(self) -> dict[str, Any]:
        """Return the candidate as plain values, for parity.json and result.json."""
        values = asdict(self)
        for key in ("metric_delta_ci", "auc_delta_ci", "per_class"):
            values[key] = None if values[key] is None else list(values[key])
        return values


def limits_of(edge: EdgeConfig, *, max_size_bytes: int = 0) -> Limits:
    """Return the limits of a plan's [edge]; ``max_size_bytes`` is that of a student by size."""
    return Limits(
        min_agreement=edge.min_agreement,
        max_accuracy_drop=edge.max_accuracy_drop,
        min_fidelity=edge.min_fidelity,
        max_auc_drop=edge.max_auc_drop,
        max_size_bytes=max_size_bytes,
    )


def gate(
    agreement: float,
    metric_delta: float | None,
    limits: Limits,
    *,
    auc_delta: float | None = None,
    fidelity: float | None = None,
    size_bytes: int | None = None,
) -> Verdict:
    """Return whether a candidate is close enough to the global model, and small enough.

    The first limit that it misses is named. A figure that is None is undefined or not asked for
    (``fidelity`` of fp32) and gates nothing; one that is NaN does not pass.
    """
    if not agreement >= limits.min_agreement:
        return refuse(
            "agreement",
            f"agrees with the global model in {agreement:.3f}, the plan asks for "
            f"{limits.min_agreement}",
            CURE,
        )
    if fidelity is not None and not fidelity >= limits.min_fidelity:
        return refuse(
            "fidelity",
            f"agrees with its own fp32 in {fidelity:.3f}, the plan asks for {limits.min_fidelity}",
            "another recipe, more records for calibration, or another min_fidelity in [edge]",
        )
    losses = (
        ("accuracy", metric_delta, limits.max_accuracy_drop),
        ("auc", auc_delta, limits.max_auc_drop),
    )
    for code, delta, allowed in losses:
        if delta is not None and not -delta <= allowed:
            name = "AUC" if code == "auc" else code
            return refuse(code, f"loses {-delta:.3f} of {name}, the plan allows {allowed}", CURE)
    if limits.max_size_bytes and size_bytes is not None and size_bytes > limits.max_size_bytes:
        return refuse(
            "size",
            f"has {size_bytes} bytes, the plan's student at most {limits.max_size_bytes}",
            "a smaller student, a quantized recipe, or a larger size in [edge] student",
        )
    return ACCEPT

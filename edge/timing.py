"""How long one answer takes: CPU time of interleaved blocks, kept so that it is measured once."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ..core.errors import InvalidInput
from .device import infer

BLOCKS, LEAST_BLOCKS = 31, 5  # interleaved blocks per candidate
BLOCK_S, MOST_CALLS = 0.01, 500  # CPU seconds that a block should take, of at most so many calls
BUDGET_S = 3.0  # CPU seconds for each candidate, unless LEAST_BLOCKS of one call take longer
FEATURES = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "sve",
)  # fmt: skip
"""What decides how fast int8 is, as Linux spells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What one candidate took on one machine: a measurement, and so an input of a bundle.

    ``cpu_ms`` is the median CPU time of one answer to one record with one thread, ``noise`` half
    the interquartile range of the block times over it; ``ratio`` the median, over the blocks, of
    the time over that of the ``reference`` (digest of fp32's file) in the same block, and
    ``ratio_noise`` half the interquartile range of those ratios.
    """

    cpu_ms: float
    noise: float
    ratio: float
    ratio_noise: float
    blocks: int
    calls: int
    reference: str
    machine: Mapping[str, Any]

    def row(self) -> dict[str, Any]:
        """Return plain values, from which ``timings_from`` makes the same object."""
        return asdict(self) | {"machine": dict(self.machine)}


def time_candidates(
    sessions: Mapping[str, ort.InferenceSession], record: NDArray[np.generic]
) -> dict[str, Timing]:
    """Return the timing of each session, by digest; the first is the reference.

    ``record`` (1, ...) is what they answer. Blocks of calls are interleaved, so that a busy
    machine slows all candidates alike; thread CPU time, because wall time measures the
    neighbours. Blocks are as long as the clock needs, and as many as fit into the budget.
    """
    once = {digest: _one_call(session, record) for digest, session in sessions.items()}
    calls = {d: int(np.clip(BLOCK_S / t, 1, MOST_CALLS)) for d, t in once.items()}
    longest = max(calls[digest] * once[digest] for digest in sessions)
    count = int(np.clip(BUDGET_S / longest, LEAST_BLOCKS, BLOCKS))
    blocks: dict[str, list[float]] = {digest: [] for digest in sessions}
    for _ in range(count):
        for digest, session in sessions.items():
            blocks[digest].append(_block(session, record, calls[digest]))
    about, reference = machine(), next(iter(sessions))
    base = np.array(blocks[reference])
    found: dict[str, Timing] = {}
    for digest, values in blocks.items():
        middle, noise = _spread(np.array(values))
        ratio, ratio_noise = _spread(np.array(values) / base)
        found[digest] = Timing(
            cpu_ms=round(middle * 1000, 5),
            noise=round(noise, 4),
            ratio=round(ratio, 4),
            ratio_noise=round(ratio_noise * ratio, 4),
            blocks=count,
            calls=calls[digest],
            reference=reference,
            machine=about,
        )
    return found


def machine() -> dict[str, Any]:
    """Return what decides how long an answer takes here: processor, its features, runtime."""
    try:
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        told = ""
    lines = [line.partition(":") for line in told.splitlines()]
    first: dict[str, str] = {}
    for key, _, value in lines:
        first.setdefault(key.strip().lower(), value.strip())
    flags = set(f"{first.get('flags', '')} {first.get('features', '')}".split())
    return {
        "processor": first.get("model name") or platform.processor() or "not known",
        "features": [each for each in FEATURES if each in flags],
        "architecture": platform.machine(),
        "system": platform.system(),
        "processors": os.cpu_count(),
        "onnxruntime": ort.__version__,
    }


def timings_from(value: Any) -> dict[str, Timing]:
    """Return timings by digest from the plain values that ``Timing.row`` gave.

    Raises ``InvalidInput`` for anything else: measured again, a bundle would get another digest.
    """
    names = {each.name for each in fields(Timing)}
    found: dict[str, Timing] = {}
    try:
        for digest, row in value.items():
            if set(row) != names or not isinstance(row["machine"], dict):
                raise ValueError(digest)
            numbers = [float(row[key]) for key in ("cpu_ms", "noise", "ratio", "ratio_noise")]
            whole = [row["blocks"], row["calls"]]
            if not all(np.isfinite(numbers)) or min(numbers[0], numbers[2]) <= 0:
                raise ValueError(digest)
            if not all(type(count) is int and count > 0 for count in whole):
                raise ValueError(digest)
            found[str(digest)] = Timing(**row)
    except (AttributeError, KeyError, TypeError, ValueError):
        raise InvalidInput(
            "the stored timings are not of this version",
            why="a timing holds " + ", ".join(sorted(names)),
            cure="delete the file: the candidates are measured again, the digest changes",
        ) from None
    return found


def _one_call(session: ort.InferenceSession, record: NDArray[np.generic]) -> float:
    """Return about how many CPU seconds one call takes; warms the session."""
    infer(session, record)
    calls, seconds = 1, _block(session, record, 1)
    while calls * seconds < BLOCK_S / 4 and calls < MOST_CALLS:
        calls *= 4
        seconds = _block(session, record, calls)
    return max(seconds, 1e-9)


def _block(session: ort.InferenceSession, record: NDArray[np.generic], calls: int) -> float:
    """Return the CPU seconds of one call, the mean over a block."""
    began = time.thread_time()
    for _ in range(calls):
        infer(session, record)
    return max((time.thread_time() - began) / calls, 1e-9)


def _spread(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the median, and half the interquartile range relative to it."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(middle), float((high - low) / 2 / max(middle, 1e-12))

"""What a site keeps of its own steps for the audit; it never leaves the site."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..core.codec import codec as codec_of
from ..core.codec import codec_names
from ..core.digest import sha256_hex
from ..core.errors import InvalidInput, MissingInput
from ..core.layout import Vector
from ..core.mechanism import MechanismSpec
from ..privacy.conformance_records import EDGES, Attempt, DrawnStep, Key
from ..privacy.noise import Floats

FILE = "evidence.jsonl"
SKETCH = 256
"""Coordinates of a step's noise that are kept, evenly spaced: enough to compare two steps."""
TRACKED = 4096
"""Units whose inclusion is kept, from the first on."""


class Evidence:
    """One site's append-only file, mode 0600: a line per step, a line per update.

    It holds the noise itself: with it an update can be undone, so it is as private as the
    records. Only the audit's verdict ever leaves.
    """

    def __init__(self, path: Path, sizes: Sequence[int] | None = None) -> None:
        """``sizes`` are the trainable tensors' numbers of coordinates in layout order.

        Without them, or when they do not add up to d, all coordinates count as one tensor.
        """
        self._path = path
        self._sizes = tuple(size for size in sizes or () if size)
        self._key: Key = ("", 0, 0)
        self._sum: Floats | None = None
        self._live: NDArray[np.bool_] | None = None

    def begin(self, *, job: str, round: int, attempt: int) -> None:
        """Open an attempt; one of the same name supersedes what an earlier try left."""
        self._key, self._sum, self._live = (job, round, attempt), None, None

    def restrict(self, live: NDArray[np.bool_]) -> None:
        """Take in which coordinates (d,) alone move in this attempt (a head that warms up).

        Its steps are then of these; the others of its update must be 0, or it does not follow.
        """
        self._live = live

    def observe(
        self,
        spec: MechanismSpec,
        *,
        step: int,
        units: int,
        batch: NDArray[np.intp],
        clean: Floats,
        noisy: Floats,
    ) -> None:
        """Note one step; without noise there is nothing to test and nothing is kept."""
        if spec.noise_std <= 0:
            return
        lines: list[dict[str, Any]] = []
        if self._sum is None:
            self._sum = np.zeros(len(clean))
            lines.append({"kind": "begin", "spec": asdict(spec)})
        self._sum += noisy / spec.normaliser
        z = (noisy - clean) / spec.noise_std
        included = np.zeros(min(units, TRACKED), dtype=bool)
        included[batch[batch < TRACKED]] = True
        lines.append(
            {
                "kind": "step",
                "step": step,
                "size": len(z),
                "squares": float(np.dot(z, z)),
                **_shape_of(z, self._tensors(len(z))),
                "sketch": _packed(z[_spaced(len(z))].astype("<f4")),
                "units": units,
                "batch": len(batch),
                "included": _packed(np.packbits(included)),
            }
        )
        self._append(lines)

    def end(self, vector: Vector, *, codec: str | None = None) -> None:
        """Note how the update (d,) that is about to leave follows from the observed steps.

        ``codec`` names the one that encodes it; without, its bytes under each are noted.
        """
        if self._sum is None:
            return
        total = self._whole(len(vector))
        rate, residual = _fit(vector, total)
        size = len(self._sum) if len(total) == len(vector) else len(vector)
        values = {"kind": "end", "size": size, "rate": rate, "residual": residual}
        names = codec_names() if codec is None else (codec,)
        payloads = {name: sha256_hex(codec_of(name).encode(vector)) for name in names}
        self._append([values | {"payloads": payloads}])
        self._sum = None

    def _tensors(self, size: int) -> tuple[int, ...]:
        """Return the live coordinates of each trainable tensor that has any."""
        sizes = self._sizes
        if self._live is not None and sum(sizes) == len(self._live):
            parts = np.split(self._live, np.cumsum(sizes)[:-1])
            sizes = tuple(int(part.sum()) for part in parts if part.any())
        return sizes if sum(sizes) == size else (size,)

    def _whole(self, size: int) -> Floats:
        """Return the sum of the noisy steps over all coordinates, 0 where nothing moves."""
        total = np.zeros(0) if self._sum is None else self._sum
        live = self._live
        if live is None or len(live) != size or np.count_nonzero(live) != len(total):
            return total
        whole = np.zeros(size)
        whole[live] = total
        return whole

    def _append(self, lines: list[dict[str, Any]]) -> None:
        job, round_, attempt = self._key
        head = {"job": job, "round": round_, "attempt": attempt}
        text = "".join(json.dumps(head | line) + "\n" for line in lines).encode()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a+b", buffering=0, opener=_private) as stream:
            if lines[0]["kind"] == "begin" and stream.tell() and _torn(stream):
                text = b"\n" + text  # what a kill left of a line stays alone on its own
            stream.write(text)


def read_evidence(path: Path) -> dict[Key, Attempt]:
    """Return each attempt of an evidence file, the newest try of each; torn lines are skipped.

    Raises ``MissingInput`` without a file and ``InvalidInput`` for one that is not evidence.
    """
    if not path.is_file():
        raise MissingInput(
            f"there is no evidence at {path}",
            why="the run was made with --no-privacy or by a version that kept none",
            cure="run the plan again with this version and with privacy",
        )
    attempts: dict[Key, Attempt] = {}
    ends: dict[Key, dict[str, Any]] = {}
    with path.open("rb") as stream:
        for raw in stream:
            try:
                line = json.loads(raw)
            except ValueError:
                continue  # torn by a kill; the attempt that it belongs to was made again
            try:
                _take(line, attempts, ends)
            except (KeyError, TypeError, ValueError) as error:
                raise InvalidInput(
                    f"{path} is not evidence of this version",
                    why=f"a line does not hold what it should ({type(error).__name__})",
                    cure="restore the file, or run again",
                ) from error
    return {
        key: _ended(attempt, ends.get(key)) for key, attempt in attempts.items() if attempt.steps
    }


def _take(
    line: Mapping[str, Any], attempts: dict[Key, Attempt], ends: dict[Key, dict[str, Any]]
) -> None:
    key = (str(line["job"]), int(line["round"]), int(line["attempt"]))
    if line["kind"] == "begin":
        names = {item.name for item in fields(MechanismSpec)}
        spec = MechanismSpec(**{k: v for k, v in line["spec"].items() if k in names})
        attempts[key] = Attempt(key=key, spec=spec)
        ends.pop(key, None)
    elif line["kind"] == "step":
        step = _step(line)
        attempts[key].steps[step.step] = step
    elif line["kind"] == "end":
        ends[key] = dict(line)
    else:
        raise ValueError(line["kind"])


def _step(line: Mapping[str, Any]) -> DrawnStep:
    bits = np.frombuffer(base64.b64decode(line["included"]), dtype=np.uint8)
    tracked = min(int(line["units"]), TRACKED)
    return DrawnStep(
        step=int(line["step"]),
        size=int(line["size"]),
        squares=float(line["squares"]),
        sketch=np.frombuffer(base64.b64decode(line["sketch"]), dtype="<f4"),
        units=int(line["units"]),
        batch=int(line["batch"]),
        included=np.unpackbits(bits, count=tracked).astype(bool),
        tensor_sizes=tuple(int(size) for size, _ in line.get("tensors", ())),
        tensor_squares=tuple(float(squares) for _, squares in line.get("tensors", ())),
        bins=tuple(int(count) for count in line.get("bins", ())),
        negative=int(line.get("negative", 0)),
        zeros=int(line.get("zeros", 0)),
    )


def _ended(attempt: Attempt, end: Mapping[str, Any] | None) -> Attempt:
    if end is None:
        return attempt
    return replace(
        attempt,
        rate=float(end["rate"]),
        residual=float(end["residual"]),
        size=int(end["size"]),
        payloads={str(name): str(digest) for name, digest in end.get("payloads", {}).items()},
    )


def _fit(vector: Vector, total: Floats) -> tuple[float, float]:
    """Return the rate r of the best vector = -r total, and the largest relative misfit."""
    if len(vector) != len(total):
        return 0.0, 1.0
    update = vector.astype(np.float64)
    rate = float(-np.dot(update, total) / max(float(np.dot(total, total)), 1e-300))
    largest = float(np.abs(update).max(initial=0.0))
    misfit = float(np.abs(update + rate * total).max(initial=0.0))
    return rate, misfit / largest if largest else misfit


def _shape_of(z: Floats, sizes: Sequence[int]) -> dict[str, Any]:
    """Return how z (d,) is spread over the tensors and over the bins of |z|."""
    parts = np.split(z, np.cumsum(sizes)[:-1])
    height = np.abs(z, dtype=np.float32)  # half the time; an edge moves by 2^-24 of itself
    below = [0, *(int(np.count_nonzero(height < edge)) for edge in EDGES), len(z)]
    return {
        "tensors": [[len(part), float(np.dot(part, part))] for part in parts],
        "bins": np.diff(below).tolist(),
        "negative": int(np.count_nonzero(z < 0)),
        "zeros": len(z) - int(np.count_nonzero(z)),
    }


def _spaced(size: int) -> NDArray[np.intp]:
    """Return at most ``SKETCH`` evenly spaced coordinates of ``size``."""
    return np.linspace(0, size - 1, min(size, SKETCH)).astype(np.intp)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _torn(stream: IO[bytes]) -> bool:
    stream.seek(-1, os.SEEK_END)
    return stream.read(1) != b"\n"


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(values.tobytes()).decode()

"""Peak memory of one private step with and without [hardware] micro_batch, and its sum."""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from collegium.core.mechanism import MechanismSpec
from collegium.privacy.augment import Augment
from collegium.privacy.clipping import CHUNK, make_clipper
from collegium.privacy.noise import SeededNoise
from collegium.privacy.step import private_gradient

RECORDS, SIDE = 1500, 64
SPEC = MechanismSpec(
    unit="record", relation="add-or-remove-one", clip_norm=1.0, noise_multiplier=0.0,
    sampler="poisson", sampling_rate=1.0, public_records=RECORDS, normaliser=1.0, steps=1,
    batch_cap=0, delta=1e-6, trainable_digest="sha256:benchmark",
)  # fmt: skip


class Net(nn.Module):
    """64 x 64 RGB images to ten logits; GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2), nn.GroupNorm(4, 16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 64, 64, 3) of 0..255 to (batch, 10)."""
        return self.head(self.body(x.permute(0, 3, 1, 2) / 255.0))


def _loss(output: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(output, y, reduction="none")


def one(micro_batch: int, copies: int) -> dict[str, Any]:
    """Take one step in this process; return its time, peak memory and the norm of its sum."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, rng = Net().train(), np.random.default_rng(0)
    x = rng.integers(0, 256, (RECORDS, SIDE, SIDE, 3), dtype=np.uint8)
    y = rng.integers(0, 10, RECORDS)
    clipper = make_clipper(model, list(model.parameters()), _loss, chunk=micro_batch or CHUNK)
    augment = Augment(kind="flip-shift", copies=copies) if copies > 1 else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    stream = SeededNoise(0).stream(site="a", round=1, step=0)
    found = private_gradient(SPEC, clipper, x, y, stream, augment=augment, micro_batch=micro_batch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "micro_batch": micro_batch, "copies": copies, "sum": found.tolist(),
        "seconds": time.perf_counter() - started, "step_mb": (peak - before) / 1024,
    }  # fmt: skip


def main() -> None:
    """Run each setting in a fresh process; print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", nargs=2, type=int, metavar=("MICRO_BATCH", "COPIES"))
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(one(*chosen.one)))
        return
    rows: list[dict[str, Any]] = []
    for copies in (1, 8):
        for micro_batch in (0, 128, 16):
            words = [sys.executable, __file__, "--one", str(micro_batch)]
            done = subprocess.run([*words, str(copies)], capture_output=True, text=True, check=True)
            rows.append(json.loads(done.stdout))
    wholes = {row["copies"]: np.array(row["sum"]) for row in rows if not row["micro_batch"]}
    for row in rows:
        whole = wholes[row["copies"]]
        error = np.linalg.norm(np.array(row.pop("sum")) - whole) / np.linalg.norm(whole)
        row["relative_error"] = float(error)
    if chosen.json:
        settings = {"records": RECORDS, "side": SIDE, "machine": platform.machine()}
        print(json.dumps({"schema": 1, "settings": settings, "cases": rows}))
        return
    print("| copies | micro_batch | peak of the step, MB | seconds | differs from the whole by |")
    print("|--:|--:|--:|--:|--:|")
    for row in rows:
        print(
            f"| {row['copies']} | {row['micro_batch']} | {row['step_mb']:.0f} "
            f"| {row['seconds']:.1f} | {row['relative_error']:.1e} |"
        )


if __name__ == "__main__":
    main()

"""Compare private steps (book-keeping, Opacus hooks) with a plain SGD step: CPU and memory."""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from private_step_models import CASES, Case
from torch.nn import functional

from collegium.privacy.clipping import make_clipper

CHECKED = 8  # records whose clipped sum is compared with the oracle
VARIANTS = ("plain", "bookkeeping", "opacus")
Step = Callable[[torch.Tensor, torch.Tensor], Any]


def plain(case: Case) -> Step:
    """Return one SGD step: forward, backward of the mean loss, update."""
    model, parameters = case.build(False)
    optimizer = torch.optim.SGD(parameters, lr=1e-9)

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def bookkeeping(case: Case) -> Step:
    """Return one clipped sum of ours."""
    clipper = make_clipper(*case.build(False), per_record_loss)
    return lambda x, y: torch.from_numpy(clipper.clipped_sum(x, y, case.clip_norm))


def opacus(case: Case) -> Step:
    """Return one clipped sum as Opacus' own optimizer makes it, without noise or update."""
    from opacus.grad_sample.grad_sample_module import GradSampleHooks
    from opacus.optimizers import DPOptimizer

    model, parameters = case.build(True)
    GradSampleHooks(model, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(parameters, lr=1e-9),
        noise_multiplier=0.0,
        max_grad_norm=case.clip_norm,
        expected_batch_size=1,
        loss_reduction="sum",
    )

    def step(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        per_record_loss(model(x), y).sum().backward()
        optimizer.clip_and_accumulate()
        found = torch.cat([p.summed_grad.flatten() for p in parameters])  # pyright: ignore
        optimizer.zero_grad()
        return found

    return step


MAKERS: dict[str, Callable[[Case], Step]] = {
    "plain": plain,
    "bookkeeping": bookkeeping,
    "opacus": opacus,
}


def per_record_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return (batch,) cross entropies."""
    return functional.cross_entropy(logits, labels, reduction="none")


def oracle(case: Case) -> torch.Tensor:
    """Return the clipped sum by plain autograd in float64, one record after the other."""
    model, _ = case.build(False)
    model = copy.deepcopy(model).double()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    x, y = case.data(CHECKED)
    x = x.double() if x.is_floating_point() else x
    total = torch.zeros(sum(p.numel() for p in parameters), dtype=torch.float64)
    for i in range(len(x)):
        grads = torch.autograd.grad(per_record_loss(model(x[i : i + 1]), y[i : i + 1]), parameters)
        row = torch.cat([grad.flatten() for grad in grads])
        total += row * min(1.0, case.clip_norm / float(row.norm()))
    return total


def measure(name: str, repeats: int, with_opacus: bool) -> dict[str, Any]:
    """Return one case's figures; its variants take turns, so that they share the noise."""
    case = CASES[name]
    names = [kind for kind in VARIANTS if kind != "opacus" or with_opacus]
    steps = {kind: MAKERS[kind](case) for kind in names}
    exact = oracle(case)
    errors = {}
    for kind in names[1:]:
        found = steps[kind](*case.data(CHECKED)).double()
        errors[kind] = float((found - exact).norm() / exact.norm())
    x, y = case.data()
    times: dict[str, list[float]] = {kind: [] for kind in names}
    for kind in names:
        steps[kind](x, y)
    for repeat in range(repeats):
        for kind in names if repeat % 2 == 0 else reversed(names):
            if kind == "opacus" and repeat % 3:
                continue  # it is slow, and its figure needs less precision
            before = time.process_time()
            steps[kind](x, y)
            times[kind].append(time.process_time() - before)
    middle = {kind: median(found) for kind, found in times.items()}
    figures: dict[str, Any] = {
        f"ratio_{kind}": middle[kind] / middle["plain"] for kind in names[1:]
    }
    figures |= {f"memory_{kind}": memory(name, kind) for kind in names}
    figures |= {f"cpu_ms_{kind}": 1e3 * middle[kind] for kind in names}
    figures |= {"sum_error": errors["bookkeeping"], "target_ratio": case.target}
    if with_opacus:
        figures["sum_error_opacus"] = errors["opacus"]
        figures["cpu_opacus_over_bookkeeping"] = middle["opacus"] / middle["bookkeeping"]
        figures["memory_opacus_over_bookkeeping"] = (
            figures["memory_opacus"] / figures["memory_bookkeeping"]
        )
    say(f"{name}: " + ", ".join(f"{key} {value:.4g}" for key, value in figures.items()))
    return figures


def memory(name: str, kind: str) -> float:
    """Return the peak extra memory of a step in MiB, in a process of its own."""
    # Large blocks go back to the system at once, so that resident memory follows the tensors.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, "--memory", name, kind]
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"{name} {kind} failed:\n{found.stderr}")
    return float(found.stdout)


def peak_of(name: str, kind: str) -> float:
    """Return how far resident memory rises above what model and data hold, in MiB (Linux).

    A small step first loads code and fills caches; then the kernel's high-water mark is reset.
    """
    case = CASES[name]
    step = MAKERS[kind](case)
    x, y = case.data()
    step(x[:2], y[:2])
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    before = status("VmRSS")
    for _ in range(2):
        step(x, y)
    return (status("VmHWM") - before) / 1024


def status(key: str) -> int:
    """Return a figure of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def table(found: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| case | plain, CPU ms | ours / plain | allowed | Opacus / plain | Opacus / ours"
        " | extra MiB: plain, ours, Opacus | error of our sum |",
        "|---|--:|--:|--:|--:|--:|---|--:|",
    ]
    for name, case in found["cases"].items():
        hooks = case.get("ratio_opacus", float("nan"))
        sizes = [case.get(f"memory_{kind}", float("nan")) for kind in VARIANTS]
        lines.append(
            f"| `{name}` | {case['cpu_ms_plain']:.0f} | {case['ratio_bookkeeping']:.2f}"
            f" | {case['target_ratio']} | {hooks:.2f} | {hooks / case['ratio_bookkeeping']:.1f}"
            f" | {', '.join(f'{size:.0f}' for size in sizes)} | {case['sum_error']:.1e} |"
        )
    return "\n".join(lines)


def say(text: str) -> None:
    """Tell a waiting human, on stderr."""
    print(text, file=sys.stderr)


def main() -> None:
    """Parse, measure, print."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=12, help="steps of each variant")
    parser.add_argument("--no-opacus", action="store_true", help="leave Opacus hooks out")
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "VARIANT"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.memory:
        print(peak_of(*asked.memory))
        return
    found = {
        "schema": 1,
        "machine": {
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "opacus", "torchvision")},
        },
        "cases": {name: measure(name, asked.repeats, not asked.no_opacus) for name in asked.cases},
    }
    print(json.dumps(found, indent=1) if asked.json else table(found))


if __name__ == "__main__":
    main()

"""Private steps on open models: time and memory beside a plain step, on CPU and, where there is
one, on a GPU."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from collegium.core.plan_model import ModelRef
from collegium.models import registry
from collegium.models.adapters import select_trainable
from collegium.privacy.clipping import make_clipper

BATCH, CLASSES, TOKENS = 32, ("no", "yes"), 64
RANDOM = {"random": 1.0}
Step = Callable[[], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model of the registry at random weights, what of it trains, and its raw inputs."""

    name: str
    trainable: str
    side: int = 0
    needs: tuple[str, ...] = ()

    def ref(self) -> ModelRef:
        """Return what a plan would say."""
        image = (self.side, self.side, 3) if self.side else ()
        options = RANDOM if self.side else RANDOM | {"tokens": float(TOKENS)}
        return ModelRef(
            name=self.name,
            task="classification",
            classes=CLASSES,
            trainable=self.trainable,
            image=image,
            options=options,
        )

    def data(self, device: str) -> tuple[Tensor, Tensor]:
        """Return one batch of made-up raw records and labels."""
        torch.manual_seed(1)
        shape = (BATCH, *registry.input_shape(self.ref()))
        high = 256 if self.side else 30_000
        return (
            torch.randint(1, high, shape).float().to(device),
            torch.randint(len(CLASSES), (BATCH,)).to(device),
        )

    def model(self, device: str) -> tuple[nn.Module, list[nn.Parameter]]:
        """Return the built model and what of it trains."""
        model = registry.build(self.ref()).to(device).train()
        return model, list(select_trainable(model, self.trainable).values())


_HF = ("transformers", "peft")
CASES = {
    "resnet18 head": Case(name="torchvision:resnet18", trainable="head", side=64),
    "resnet18 last:1": Case(name="torchvision:resnet18", trainable="last:1", side=64),
    "resnet18 all": Case(name="torchvision:resnet18", trainable="all", side=64),
    "vit_tiny head": Case(
        name="timm:vit_tiny_patch16_224", trainable="head", side=224, needs=("timm",)
    ),
    "vit_tiny last:1": Case(
        name="timm:vit_tiny_patch16_224", trainable="last:1", side=224, needs=("timm",)
    ),
    "vit_tiny all": Case(
        name="timm:vit_tiny_patch16_224", trainable="all", side=224, needs=("timm",)
    ),
    "bert_mini lora:8": Case(name="hf:bert-mini", trainable="lora:8", needs=_HF),
}


def write_bert(folder: Path) -> None:
    """Write BERT-mini's configuration (4 layers of width 256): all that random weights need."""
    config = {
        "model_type": "bert",
        "hidden_size": 256,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "pad_token_id": 0,
    }
    (folder / "bert-mini").mkdir()
    (folder / "bert-mini" / "config.json").write_text(json.dumps(config))


def per_record(logits: Tensor, labels: Tensor) -> Tensor:
    """Return (batch,) cross entropies."""
    return functional.cross_entropy(logits, labels, reduction="none")


def plain_step(case: Case, device: str) -> Step:
    """Return one SGD step: forward, backward of the mean loss, update."""
    model, chosen = case.model(device)
    optimizer = torch.optim.SGD(chosen, lr=1e-9)
    x, y = case.data(device)

    def step() -> None:
        optimizer.zero_grad()
        per_record(model(x), y).mean().backward()
        optimizer.step()

    return step


def private_step(case: Case, device: str) -> Step:
    """Return one clipped sum, as every private step of a site computes it."""
    model, chosen = case.model(device)
    clipper = make_clipper(model, chosen, per_record)
    x, y = case.data(device)
    return lambda: clipper.clipped_sum(x, y, 1.0)


MAKERS = {"plain": plain_step, "private": private_step}


def measure(name: str, repeats: int, device: str) -> dict[str, Any]:
    """Return one case's figures; both steps take turns, so that they share the noise."""
    case = CASES[name]
    steps = {kind: maker(case, device) for kind, maker in MAKERS.items()}
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for step in steps.values():
        step()
    clock = time.process_time if device == "cpu" else time.perf_counter
    for repeat in range(repeats):
        for kind in steps if repeat % 2 == 0 else reversed(list(steps)):
            _wait(device)
            before = clock()
            steps[kind]()
            _wait(device)
            seconds[kind].append(clock() - before)
    sizes = registry.sizes(case.ref())
    middle = {kind: median(found) for kind, found in seconds.items()}
    return {
        "trained": sizes.trainable,
        "parameters": sizes.total,
        **{f"{kind}_ms": 1e3 * value for kind, value in middle.items()},
        "ratio": middle["private"] / middle["plain"],
        **{f"{kind}_mib": memory(name, kind, device) for kind in steps},
    }


def memory(name: str, kind: str, device: str) -> float:
    """Return the peak extra memory of a step in MiB, on CPU in a process of its own."""
    if device != "cpu":
        return gpu_peak(CASES[name], kind, device)
    # Large blocks go back to the system at once, so that resident memory follows the tensors.
    env = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, "--memory", name, kind]
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if found.returncode:
        raise RuntimeError(f"{name} {kind} failed:\n{found.stderr}")
    return float(found.stdout.splitlines()[-1])


def gpu_peak(case: Case, kind: str, device: str) -> float:
    """Return how far a step's tensors rise above what model and data hold, in MiB."""
    step = MAKERS[kind](case, device)
    step()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def cpu_peak(name: str, kind: str) -> float:
    """Return how far resident memory rises in a second step above what the first left (Linux)."""
    step = MAKERS[kind](CASES[name], "cpu")
    step()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, see proc(5)
    before = _status("VmRSS")
    step()
    return (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])


def _wait(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


def table(found: dict[str, Any]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| model, what trains | device | trained of all | plain ms | private ms | ratio"
        " | extra MiB: plain, private |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for device, cases in found["devices"].items():
        lines += [
            f"| {name} | {device} | {c['trained']:,} of {c['parameters']:,} | {c['plain_ms']:.1f}"
            f" | {c['private_ms']:.1f} | {c['ratio']:.2f} | {c['plain_mib']:.0f},"
            f" {c['private_mib']:.0f} |"
            for name, c in cases.items()
        ]
    return "\n".join(lines)


def run(names: list[str], repeats: int) -> dict[str, Any]:
    """Return the figures of the cases whose packages are installed, per device."""
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    ready = [name for name in names if all(find_spec(one) for one in CASES[name].needs)]
    packages = [one for one in ("torch", "torchvision", "timm", "transformers") if find_spec(one)]
    found: dict[str, Any] = {
        "schema": 1,
        "batch": BATCH,
        "machine": {
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_before": os.getloadavg()[0],
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "skipped": [name for name in names if name not in ready],
        "devices": {},
    }
    for device in devices:
        found["devices"][device] = {}
        for name in ready:
            figures = measure(name, repeats, device)
            print(f"{device} {name}: {figures['ratio']:.2f}", file=sys.stderr)
            found["devices"][device][name] = figures
    return found


def main() -> None:
    """Parse, measure, print."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=6, help="steps of each kind")
    parser.add_argument("--memory", nargs=2, metavar=("CASE", "KIND"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    with TemporaryDirectory() as folder:
        write_bert(Path(folder))
        os.environ["COLLEGIUM_WEIGHTS"] = folder
        if asked.memory:
            print(cpu_peak(*asked.memory))
            return
        found = run(asked.cases, asked.repeats)
    print(json.dumps(found, indent=1) if asked.json else table(found))


if __name__ == "__main__":
    main()

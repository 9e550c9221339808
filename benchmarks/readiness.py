"""Are open models ready after `cure`? Per-record norms of the engine against plain autograd."""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from model_zoo import CLASSES, ZOO, Case
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from collegium.privacy.clipping import make_clipper
from collegium.privacy.cure import Change, cure, original_state
from collegium.privacy.readiness import check


def examine(case: Case, records: int = 2) -> dict[str, Any]:
    """Return what was wrong with a model, what `cure` did, and how right its norms are."""
    original = case.model().eval()
    problems = check(original)
    done = cure(original)
    cured, changes = done
    x, y = case.example(records), torch.arange(records) % CLASSES
    state = original_state(cured.state_dict(), changes)
    weights = original.state_dict()
    return {
        "model": case.name,
        "problems": len(problems),
        "changes": done.summary(),
        "left": [str(problem) for problem in check(cured, example=x)],
        "output_difference": _difference(original, cured.train(), x),
        "state_maps_back": state.keys() == weights.keys()
        and all(torch.equal(state[name], weights[name]) for name in weights),
        "parts": {
            part: _part(case, (original, cured, changes), (x, y), part) for part in case.parts()
        },
    }


def _part(
    case: Case,
    models: tuple[nn.Module, nn.Module, Sequence[Change]],
    records: tuple[Tensor, Tensor],
    part: str,
) -> dict[str, Any]:
    original, cured, changes = models
    names = case.trained(cured, part)
    every = dict(cured.named_parameters())
    if problems := check(cured, names):
        return {"refused": [str(problem) for problem in problems]}
    start = time.process_time()
    expected = _by_autograd(original, _original_names(names, cured, changes), *records)
    clipper = make_clipper(cured, [every[name] for name in names], _loss)
    found = torch.from_numpy(clipper.per_unit_norms(*records))
    return {
        "engine": type(clipper).__name__,
        "trained": sum(every[name].numel() for name in names),
        "share": sum(every[name].numel() for name in names)
        / sum(value.numel() for value in original.parameters()),
        "smallest_norm": float(expected.min()),
        "worst_relative_error": float(((found - expected).abs() / expected).max()),
        "cpu_seconds": time.process_time() - start,
    }


def _original_names(names: Sequence[str], cured: nn.Module, changes: Sequence[Change]) -> list[str]:
    """Return what the trained parameters are called in the original model."""
    every = dict(cured.named_parameters())
    return list(original_state({name: every[name].detach() for name in names}, changes))


def _by_autograd(model: nn.Module, names: Sequence[str], x: Tensor, y: Tensor) -> Tensor:
    """Return the (n,) norms of the eval-mode original, one record at a time."""
    parameters = [model.get_parameter(name) for name in names]
    norms: list[Tensor] = []
    for row in range(len(x)):
        loss = _loss(model(x[row : row + 1]), y[row : row + 1]).sum()
        grads = torch.autograd.grad(loss, parameters)
        norms.append(sum((g.double().square().sum() for g in grads), torch.tensor(0.0)).sqrt())
    return torch.stack(norms).double()


def _loss(logits: Tensor, y: Tensor) -> Tensor:
    return cross_entropy(logits, y, reduction="none")


def _difference(original: nn.Module, cured: nn.Module, x: Tensor) -> float:
    """Return the largest difference of outputs, relative to the largest output."""
    with torch.no_grad():
        before, after = original(x), cured(x)
    return float((before - after).abs().max() / before.abs().max())


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return the results as Markdown; what differs from machine to machine comes last."""
    lines = [
        "| model | problems | what `cure` did | share that may train | worst error, all"
        " | worst error, last part |",
        "|---|--:|---|--:|--:|--:|",
    ]
    return "\n".join([*lines, *(row(item) for item in found)])


def row(item: dict[str, Any]) -> str:
    """Return one model's line."""
    parts = item["parts"]
    errors = [f"{parts[part]['worst_relative_error']:.0e}" for part in ("all", "last")]
    return f"{fixed_cells(item)} {' | '.join(errors)} |"


def fixed_cells(item: dict[str, Any]) -> str:
    """Return the cells that are the same on every machine."""
    share = f"{item['parts']['all']['share']:.1%}"
    return f"| {item['model']} | {item['problems']} | {item['changes']} | {share} |"


def _versions() -> dict[str, str | None]:
    def found(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    names = ("torch", "torchvision", "transformers", "peft")
    return {"python": platform.python_version(), **{name: found(name) for name in names}}


def main() -> None:
    """Print the table, or with --json one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--models", nargs="*", help="only these (default: all)")
    parser.add_argument("--records", type=int, default=2, help="records per model")
    words = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for case in ZOO:
        if words.models and case.name not in words.models:
            continue
        if missing := case.missing():
            print(f"{case.name}: needs {', '.join(missing)}", file=sys.stderr)
            continue
        start = time.process_time()
        found.append(examine(case, words.records))
        print(f"{case.name}: {time.process_time() - start:.1f} CPU s", file=sys.stderr)
    if words.json:
        print(json.dumps({"schema": 1, "versions": _versions(), "models": found}, indent=2))
    else:
        print(table(found))


if __name__ == "__main__":
    main()

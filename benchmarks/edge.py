"""What quantization buys: bytes, CPU time and fidelity per recipe, and which one auto ships."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
import torch
from edge_models import NETS
from numpy.typing import NDArray

from collegium.core.digest import sha256_hex
from collegium.edge.device import open_session
from collegium.edge.export import export_onnx
from collegium.edge.parity import Limits, answers, choose, measure, time_all, together
from collegium.edge.quantize import (
    DYNAMIC,
    FP32,
    MATMUL,
    S8S8,
    STATIC,
    graph_kind,
    quantize,
    recipes,
)
from collegium.edge.timing import Timing, machine

ANY = Limits(min_agreement=0.0, max_accuracy_drop=1.0)
"""Random nets have nothing to agree on: auto chooses by time alone here."""
MORE = {"resnet18": (S8S8,), "mlp": (STATIC, DYNAMIC), "minilm": (MATMUL,)}  # auto lists none
TARGETS = {
    "resnet18": {"speed-up": 2.5, "smaller": 3.6},
    "minilm": {"speed-up": 2.0, "smaller": 3.5, "cosine": 0.99},
}


def one(name: str, repeats: int) -> dict[str, Any]:
    """Return the rows of one net: every candidate of auto, and those that are traps."""
    net = NETS[name]()
    fp32 = export_onnx(net.module, net.x[:4])
    wanted = recipes(fp32, "auto")
    every = [*wanted, *(each for each in MORE.get(name, ()) if each not in wanted)]
    files = {recipe: quantize(fp32, recipe, net.calibration) for recipe in every}
    times = timed(files, net.x, repeats)
    outputs = {r: answers(open_session(m), net.x, together(r, net.x, 16)) for r, m in files.items()}
    labels = outputs[FP32].argmax(axis=1)
    rows = measure(
        {recipe: files[recipe] for recipe in wanted}, labels, net.x, None, ANY, known=times
    )
    ships = choose(rows).recipe
    found = {
        "model": name, "kind": graph_kind(fp32), "note": net.note, "records": len(net.x),
        "ships": ships, "rows": [row(r, files, outputs, times) for r in every],
    }  # fmt: skip
    return found | {"targets": targets(name, found["rows"], ships)}


def timed(files: dict[str, bytes], x: NDArray[Any], repeats: int) -> dict[str, Timing]:
    """Return each file's timing, by digest: of several rounds the one with the median ratio."""
    rounds = [time_all(files, x) for _ in range(repeats)]
    chosen: dict[str, Timing] = {}
    for digest in rounds[0]:
        ranked = sorted((each[digest] for each in rounds), key=lambda each: each.ratio)
        chosen[digest] = ranked[len(ranked) // 2]
    return chosen


def row(
    recipe: str,
    files: dict[str, bytes],
    outputs: dict[str, NDArray[np.float32]],
    times: dict[str, Timing],
) -> dict[str, Any]:
    """Return one candidate's figures; what is "smaller" and "speed-up" is over fp32."""
    timing, own, found = times[sha256_hex(files[recipe])], outputs[FP32], outputs[recipe]
    cosines = (own * found).sum(1) / np.linalg.norm(own, axis=1) / np.linalg.norm(found, axis=1)
    return {
        "recipe": recipe,
        "bytes": len(files[recipe]),
        "smaller": round(len(files[FP32]) / len(files[recipe]), 3),
        "cpu_ms": timing.cpu_ms,
        "speed-up": round(1 / timing.ratio, 3),
        "noise": timing.ratio_noise,
        "cosine": round(float(cosines.mean()), 5),
        "least_cosine": round(float(cosines.min()), 5),
        "agreement": round(float((own.argmax(1) == found.argmax(1)).mean()), 4),
        "neighbour_kept": round(float((_nearest(own) == _nearest(found)).mean()), 4),
    }


def targets(name: str, rows: list[dict[str, Any]], ships: str) -> dict[str, Any]:
    """Return the figures that were promised of what ships: wanted, found, and whether it holds."""
    shipped = next(each for each in rows if each["recipe"] == ships)
    limits = {"speed-up": 1 / 1.1, **TARGETS.get(name, {})}  # never slower, by more than noise
    return {
        key: {"wanted": round(least, 3), "found": shipped[key], "ok": shipped[key] >= least}
        for key, least in limits.items()
    }


def _nearest(rows: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return for each of (n, d) outputs the index of the most similar other one."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -2.0)
    return alike.argmax(axis=1)


def main() -> None:
    """Measure each net with one thread, one record at a time; print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=3, help="timing rounds; medians count")
    parser.add_argument("--only", choices=list(NETS), action="append", help="repeatable")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    for name in chosen.only or NETS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        found.append(one(name, max(1, chosen.repeats)))
    if chosen.json:
        print(json.dumps({"machine": machine(), "models": found}, indent=1))
        return
    for each in found:
        print(f"\n{each['model']} ({each['kind']}; {each['note']}): ships {each['ships']}")
        head = list(each["rows"][0])
        print("| " + " | ".join(head) + " |")
        print("|" + "---|" * len(head))
        for line in each["rows"]:
            print("| " + " | ".join(str(line[key]) for key in head) + " |")
        for key, target in each["targets"].items():
            print(f"{'ok' if target['ok'] else 'MISSED'}: {key} {target['found']}, "
                  f"wanted {target['wanted']}")  # fmt: skip


if __name__ == "__main__":
    main()

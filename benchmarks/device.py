"""A device's own process: CPU seconds and peak memory from its start to the first prediction."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

# Nothing heavy here: Linux counts the memory of the process that starts another as the other's.
CASES = ("start", "digits", "resnet18", "minilm")
RECIPES = {"digits": "int8-static", "resnet18": "int8-static", "minilm": "int8-dynamic"}
QUESTIONS = 32  # records of the self-test, as the edge stage writes them
TARGET_BYTES, TARGET_CPU_S = 100_000_000, 0.6  # of resnet18


def build(case: str, folder: Path) -> None:
    """Write the signed int8 bundle of a case, its key, the script and one record to ``folder``."""
    from datetime import UTC, datetime

    import numpy as np
    import torch

    from collegium.core.signing import generate_key, save_public
    from collegium.edge.bundle import Terms, json_bytes, npz_bytes, write_bundle
    from collegium.edge.device import infer_in_parts, open_session
    from collegium.edge.export import OPSET, export_onnx
    from collegium.edge.quantize import quantize
    from collegium.edge.single_file import device_script

    torch.set_num_threads(1)
    net = _net(case)
    model = quantize(export_onnx(net.module, net.x[:4]), RECIPES[case], net.calibration)
    x = net.x[:QUESTIONS]
    logits = infer_in_parts(open_session(model), x, 1)
    form = {"schema": 1, "kind": "array", "dtype": x.dtype.name, "shape": list(x.shape[1:])}
    files = {
        "model.onnx": model,
        "labels.json": json_bytes({"classes": [f"c{i}" for i in range(logits.shape[1])]}),
        "selftest.npz": npz_bytes(x=x, logits=logits, labels=logits.argmax(axis=1)),
    }
    if case == "resnet18":
        form["kind"] = "image"
    if case == "minilm":
        form["kind"] = "text"
        form["tokenizer"], files["vocab.txt"] = _wordpiece(x.shape[1])
    files["input.json"] = json_bytes(form)
    key = generate_key()
    terms = Terms(
        name="benchmark", version=1, created=datetime.now(UTC), simulated=False, opset=OPSET,
        lineage={}, gate={"recipe": RECIPES[case]}, selftest_min_agreement=0.9,
    )  # fmt: skip
    write_bundle(folder / case, files, terms, [key])
    save_public(key.public_key(), folder / f"{case}.pub")
    _write_record(folder, case, x)
    np.save(folder / f"{case}.npy", x[:1])
    (folder / "device.py").write_text(device_script(), encoding="utf-8")


def _net(case: str) -> Any:
    from edge_models import NETS, Net

    if case != "digits":
        return NETS[case]()
    from collegium.core.plan_model import ModelRef
    from collegium.data.glyphs import glyph_set
    from collegium.models import registry

    classes = tuple("0123456789")
    ref = ModelRef(name="collegium:glyph-cnn", task="classification", classes=classes)
    glyphs = glyph_set(600, seed=1)
    model = registry.open_model(ref).eval()
    return Net(module=model, x=glyphs.x[:64], calibration=glyphs, note="open weights")


def _wordpiece(tokens: int) -> tuple[dict[str, Any], bytes]:
    from edge_models import MINILM

    from collegium.core.plan_model import ModelRef
    from collegium.edge.inputs_wordpiece import wordpiece_of

    ref = ModelRef(name=MINILM, task="classification", classes=("a", "b"))
    pieces = wordpiece_of(ref)
    return pieces.form(tokens), "".join(f"{piece}\n" for piece in pieces.vocabulary).encode()


def _write_record(folder: Path, case: str, x: Any) -> None:
    if case == "resnet18":
        from PIL import Image

        Image.fromarray(x[0]).save(folder / f"{case}.png")


def words_of(case: str, *, module: bool, folder: Path) -> list[str]:
    """Return the command that a device runs for a case: the script, or it as a module."""
    script = [sys.executable, *(["-s", "-m", "device"] if module else ["-I", "device.py"])]
    if case == "start":
        return [*script, "--help"]
    record = {"resnet18": [str(folder / "resnet18.png")], "minilm": ["--text", "Call me now"]}
    given = record.get(case, [str(folder / f"{case}.npy")])
    return [*script, "predict", str(folder / case), *given, "--key", str(folder / f"{case}.pub")]


def measured(words: list[str], folder: Path) -> tuple[float, int]:
    """Run a process in ``folder``; return its CPU seconds and its peak memory in bytes."""
    with (
        tempfile.TemporaryFile() as heard,
        subprocess.Popen(words, stdout=heard, cwd=folder) as process,
    ):
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        heard.seek(0)
        answered = heard.read()
    if process.returncode or not answered.startswith((b"verified", b"usage")):
        raise SystemExit(f"the device process ended with {process.returncode}: {words}")
    scale = 1 if sys.platform == "darwin" else 1024
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * scale


def run(folder: Path, cases: list[str], repeats: int, *, module: bool) -> list[dict[str, Any]]:
    """Return one row per case; the cases take turns, so that all meet the same neighbours."""
    found: dict[str, list[tuple[float, int]]] = {case: [] for case in cases}
    for turn in range(repeats + 1):
        for case in cases:
            figures = measured(words_of(case, module=module, folder=folder), folder)
            if turn:  # the first turn fills the caches
                found[case].append(figures)
    rows: list[dict[str, Any]] = []
    for case, figures in found.items():
        model = folder / case / "model.onnx"
        rows.append(
            {
                "case": case,
                "model_bytes": model.stat().st_size if model.is_file() else 0,
                "cpu_seconds": round(median(cpu for cpu, _ in figures), 3),
                "cpu_seconds_all": [round(cpu, 3) for cpu, _ in figures],
                "peak_rss_bytes": int(median(rss for _, rss in figures)),
            }
        )
    return rows


def main() -> None:
    """Build the bundles in processes of their own, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--bundles", type=Path, help="keep the bundles here, and use them again")
    parser.add_argument("--module", action="store_true", help="run python -m device instead")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--build", metavar="CASE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.build:
        build(options.build, options.bundles)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.bundles or Path(temporary)).absolute()
        folder.mkdir(exist_ok=True)
        for case in [c for c in options.cases if c != "start" and not (folder / c).is_dir()]:
            print(f"building {case}", file=sys.stderr)
            words = [sys.executable, __file__, "--build", case, "--bundles", str(folder)]
            subprocess.run(words, check=True)
        rows = run(folder, options.cases, options.repeats, module=options.module)
    report = {
        "rows": rows,
        "repeats": options.repeats,
        "module": options.module,
        "target": {"case": "resnet18", "bytes": TARGET_BYTES, "cpu_seconds": TARGET_CPU_S},
        "machine": {"architecture": platform.machine(), "python": platform.python_version()},
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "at": time.strftime("%Y-%m-%d"),
    }
    if options.json:
        print(json.dumps(report))
        return
    print(f"{'case':10} {'model MB':>9} {'CPU s':>7} {'peak MB':>8}")
    for row in rows:
        size, peak = row["model_bytes"] / 1e6, row["peak_rss_bytes"] / 1e6
        print(f"{row['case']:10} {size:9.2f} {row['cpu_seconds']:7.3f} {peak:8.1f}")
    print(f"target for resnet18: {TARGET_CPU_S} CPU s, {TARGET_BYTES / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

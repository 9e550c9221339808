"""How a finished run is summed up in a terminal, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..server.words import clean, duration, epsilon, shrinkage, size

_SHOWN = ("macro_accuracy", "accuracy", "auc", "dice", "c_index", "rmse")


def show(console: Console, values: Mapping[str, Any], folder: Path) -> None:
    """Print the figures of one result.json, where the report is, and what to type next."""
    if len(values["seeds"]) > 1:
        seeds = ", ".join(str(seed) for seed in values["seeds"])
        console.print(Text(f"Medians over the seeds {seeds}", style="bold"))
    console.print(_models(values))
    console.print()
    for name, text in _facts(values, folder):
        for number, line in enumerate(text.split("\n")):
            label = Text(f"{'' if number else name:<11}", style="cyan")
            console.print(label.append_text(line), soft_wrap=True)


def _models(values: Mapping[str, Any]) -> Table:
    """The released model against the comparisons, on the metrics that it has."""
    released = values["global"]["metrics"]
    names = [name for name in _SHOWN if name in released] or list(released)[:1]
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), show_edge=False)
    table.add_column("")
    for name in names:
        table.add_column(clean(name), justify="right", style="bold")
    rows = (
        ("open model, untouched", (values["open_model"] or {}).get("metrics"), "dim"),
        ("most frequent class of each site", values.get("majority"), "dim"),
        ("each site alone, mean", (values["local"] or {}).get("metrics_mean"), "dim"),
        ("  on its own test records", _own(values), "dim"),
        ("federated, released", released, "bold green"),
        ("pooled, without privacy", (values["pooled"] or {}).get("metrics"), "dim"),
    )
    for label, found, style in rows:
        if found:
            figures = [f"{found[name]:.3f}" if name in found else "-" for name in names]
            table.add_row(label, *figures, style=style)
    return table


def _own(values: Mapping[str, Any]) -> Mapping[str, float]:
    """Return what each site's own model reaches on its own test records; the mean is the macro."""
    found = dict((values["local"] or {}).get("own_metrics_mean") or {})
    if "accuracy" in found:
        found["macro_accuracy"] = found.pop("accuracy")
    return found


def _facts(values: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, Text]]:
    privacy, edge = values["privacy"], values["edge"]
    if privacy:
        budget = values.get("epsilon_budget")
        limit = f" of {budget:g}" if budget else ""
        spent = epsilon(values["epsilon_max"])
        yield "epsilon", Text(f"{spent}{limit} at each site, delta {privacy['delta']:g}")
    else:
        yield "epsilon", Text("privacy was switched off", style="yellow")
    if edge and edge["verified"]:
        shape = f"{clean(edge['recipe'])}, {size(edge['size_bytes'])}"
        smaller = shrinkage(edge["size_ratio"])
        agreement = f"agrees with the global model in {edge['agreement']:.1%}"
        free = "data-free, " if edge.get("data_free") else ""
        line = Text(f"{shape}, {smaller}, {agreement}, {free}")
        yield "edge", line.append("verified", style="green")
    elif edge:
        reason = clean(edge.get("reason") or "no candidate passed the gate")
        yield "edge", Text(f"no bundle: {reason}", style="red")
    elif reason := values.get("edge_reason"):
        yield "edge", Text(f"no bundle: {clean(reason)}", style="red")
    peak = values["peak_rss_bytes"]  # None where nobody saw all processes
    yield "took", Text(duration(values["seconds"]) + (f", {size(peak)} at most" if peak else ""))
    if values["simulated"]:
        warning = "noise reproducible, no privacy guarantee" if privacy else "no privacy guarantee"
        yield "simulated", Text(warning, style="yellow")
    yield "report", Text(str(folder / "report.html"), style="bold")
    yield "next", Text("\n".join(_next(values, folder)))


def _next(values: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """What to type next: the bundle on a device, what was spent, an own plan."""
    inside = folder / "seeds" / str(values["seeds"][0]) if len(values["seeds"]) > 1 else folder
    bundle, key = (
        shlex.quote(str(inside / "bundle")),
        shlex.quote(str(inside / "keys" / "bundle.pub")),
    )
    if values["edge"] and values["edge"]["verified"]:
        allow = " --allow-simulated" if values["simulated"] else ""
        yield f"collegium edge verify {bundle} --key {key}{allow}"
    if values["privacy"] and (inside / "ledgers").is_dir() and any(inside.glob("ledgers/*.sqlite")):
        yield f"collegium ledger show {shlex.quote(str(inside))}"
    yield "collegium init my-study"

"""``collegium audit``: did the mechanism that was charged really run, and what does it leak?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..core.errors import UsageError
from .verbs import example

if TYPE_CHECKING:
    from rich.console import Console

_COLOURS = {"passed": "green", "failed": "bold red", "not exercised": "yellow"}


@click.command(
    epilog=example("audit run", "audit run --canaries 300", "audit --site site.toml --json")
)
@click.argument("run", metavar="[RUN]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--canaries",
    metavar="M",
    type=click.IntRange(min=20),
    help="Also run the plan on a shadow copy of one site with M canary inputs, charged.",
)
@click.option(
    "--site",
    "site_file",
    metavar="SITE.toml",
    type=click.Path(path_type=Path, dir_okay=False),
    help="At a real site: test its own evidence. Nothing is written and nothing leaves.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(run: Path | None, canaries: int | None, site_file: Path | None, as_json: bool) -> None:
    """Test what the sites of RUN did against the mechanism that their ledgers were charged for.

    Noise, batches, clipping and released tensors have exact tests; together they fail an honest
    run once in a million. They attest honest software, not an honest operator. Answers 1 when
    one fails or canaries contradict the claimed epsilon, 66 when RUN holds no evidence. Writes
    RUN/audit.json for its owner alone: a statement tells no more of it than verdicts.
    """
    if (run is None) == (site_file is None):
        raise UsageError(
            "name a run directory, or a site file with --site",
            why="one of the two is audited",
            cure="`collegium audit --help` shows how",
        )
    from ..simulations.audit import audit_run, audit_site, require_passed

    if site_file is not None:
        if canaries is not None:
            raise UsageError(
                "--canaries cannot be used with --site",
                why="a charged canary run at a real site needs its owner's budget",
                cure="audit a simulation of the same plan with --canaries",
            )
        values = audit_site(site_file)
    elif run is not None:
        values = audit_run(run, canaries=canaries or 0)
    else:
        return
    if as_json:
        click.echo(json.dumps(values))
    else:
        from rich.console import Console

        _show(Console(highlight=False, markup=False), values)
    require_passed(values)


def _show(console: Console, values: Mapping[str, Any]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("test", "where"):
        table.add_column(name, overflow="fold")
    table.add_column("found", overflow="fold", ratio=1)
    table.add_column("p", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in _grouped(values["tests"]):
        verdict = Text(row["verdict"], style=_COLOURS[row["verdict"]])
        p = "exact" if row["p_value"] is None else f"{row['p_value']:.2g}"
        open_ = row["verdict"] == "not exercised"
        found = row["note"] if open_ else row["statistic"]
        table.add_row(row["name"], row["site"], found, "-" if open_ else p, verdict)
    console.print(table)
    _leakage(console, values.get("leakage"))
    _membership(console, values.get("membership"))
    counts = values["counts"]
    tested = f"{values['p_values']} p-values against {values['threshold']:.1e} each"
    console.print(
        f"\n{counts['failed']} failed, {counts['not exercised']} not exercised; {tested}."
    )
    word = "passed" if values["passed"] else "failed"
    console.print(
        Text(f"Audit {word}", style=_COLOURS[word]), Text(f"({values['attests']})", style="dim")
    )
    if values["guarantee"]:
        console.print(Text(values["guarantee"], style="yellow"))


def _grouped(findings: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Yield failures one by one, and what passed at several sites as one row: its smallest p."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in findings:
        key = row["site"] if row["verdict"] == "failed" else ""
        groups.setdefault((row["name"], f"{row['verdict']} {key}"), []).append(row)
    for rows in groups.values():
        least = min(rows, key=lambda row: 1.0 if row["p_value"] is None else row["p_value"])
        if len(rows) == 1:
            yield least
            continue
        build, _, rest = least["site"].partition(", C")
        where = f"{build}, {len(rows)} clip norms" if rest else f"{len(rows)} sites"
        yield {**least, "site": where, "statistic": f"{least['site']}: {least['statistic']}"}


def _leakage(console: Console, leakage: Mapping[str, Any] | None) -> None:
    if not leakage:
        return
    console.print(
        f"\n{leakage['canaries']} canaries at a shadow of '{leakage['site']}', claimed epsilon"
        f" {leakage['claimed_epsilon']:.3f}; lower bounds at {leakage['confidence']:.0%}:"
    )
    for attack, found in leakage["attacks"].items():
        verdict = "contradicts the claim" if found["contradicts_claim"] else "within the claim"
        console.print(
            f"  {attack}: one-run {found['one_run']:.2f} (strict), f-DP {found['f_dp']:.2f}, GDP"
            f" {found['gdp']:.2f} (estimate), AUROC {found['auroc']:.3f}: {verdict}"
        )


def _membership(console: Console, membership: Mapping[str, Any] | None) -> None:
    if not membership:
        return
    console.print(f"\nMembership of real records ({membership['note']}):")
    for model, sites in membership["models"].items():
        for site, found in sites.items():
            console.print(
                f"  {model}, {site}: AUROC {found['auroc']:.3f}, {_rate(found, membership)}"
            )


def _rate(found: Mapping[str, Any], membership: Mapping[str, Any]) -> str:
    others = f"{found['others']} non-member{'' if found['others'] == 1 else 's'}"
    if found["tpr"] is None:
        return f"TPR {found['tpr_without_false_positive']:.3f} before the first of {others}"
    return f"TPR {found['tpr']:.3f} at FPR {membership['false_positive_rate']:g}, {others}"

"""``collegium report``: a run as one self-contained HTML file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .verbs import example


@click.command(epilog=example("report run", "report run --out study.html"))
@click.argument("run", metavar="RUN", type=click.Path(path_type=Path))
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write it; default RUN/report.html.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the path as JSON.")
def command(run: Path, out: Path | None, as_json: bool) -> None:
    """Write the report of the finished run in RUN again.

    It shows what stands in RUN/result.json, and nothing else. The privacy statement beside it
    (privacy.json, privacy.html) also holds RUN/audit.json, once there is one.
    """
    from ..server.privacy_page import write_privacy_page
    from ..server.report import write_report

    write_privacy_page(run)
    path = write_report(run, out or run / "report.html")
    click.echo(json.dumps({"report": str(path)}) if as_json else str(path))

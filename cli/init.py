"""``collegium init``: a commented plan and site file to start from."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import click

from ..core.errors import OutputExists
from .verbs import example

FILES = ("plan.toml", "site.toml")


@click.command(epilog=example("init my-study"))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON.")
def command(folder: Path, as_json: bool) -> None:
    """Write a commented plan.toml and one site.toml into DIR.

    The plan is the digits demo: change it to yours. Nothing is overwritten.
    """
    texts = {folder / name: _template(name) for name in FILES}
    _write_new(texts)
    plan, site = texts
    if as_json:
        click.echo(json.dumps({"plan": str(plan), "site": str(site)}))
        return
    click.echo(f"{plan}  the consortium's agreement: who, which model, how private")
    click.echo(f"{site}  one site's own words: records, policy, ledger; never leaves the site")
    click.echo(f"\nNext: collegium plan explain {plan}")


def _template(name: str) -> str:
    return (resources.files(f"{__package__}") / "templates" / name).read_text(encoding="utf-8")


def _write_new(texts: dict[Path, str]) -> None:
    """Write all files or none; raises ``OutputExists`` when one of them is there."""
    taken = [str(path) for path in texts if path.exists() or path.is_symlink()]
    folder = next(iter(texts)).parent
    if folder.exists() and not folder.is_dir():
        taken = [str(folder)]
    if taken:
        raise OutputExists(
            f"{' and '.join(taken)} exists already",
            why="`init` overwrites nothing",
            cure="name another folder, or remove it first",
        )
    folder.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        with path.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)

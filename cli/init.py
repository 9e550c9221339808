"""``collegium init``: a commented plan and site file to start from."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path

import click

from ..core.errors import OutputExists
from .verbs import example

FILES = ("plan.toml", "site.toml")


@click.command(
    epilog=example("init my-study", "init my-study --model tabular:linear --trainable head")
)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--model", help="Open model of the plan, such as tabular:linear.")
@click.option("--trainable", help="What of it trains; default head.")
@click.option("--task", help="What it learns to answer; default the model's first.")
@click.option("--json", "as_json", is_flag=True, help="Print the paths as JSON.")
def command(
    folder: Path, model: str | None, trainable: str | None, task: str | None, as_json: bool
) -> None:
    """Write a commented plan.toml and one site.toml into DIR.

    With --model the plan holds the numbers that were measured for such a model
    (docs/recipes.md); otherwise it is the digits demo. Nothing is overwritten.
    """
    if model is None and (trainable or task):
        raise click.UsageError("--trainable and --task belong to --model")
    texts = {folder / name: text for name, text in _texts(model, trainable, task).items()}
    _write_new(texts)
    plan, site = texts
    if as_json:
        click.echo(json.dumps({"plan": str(plan), "site": str(site)}))
        return
    click.echo(f"{plan}  the consortium's agreement: who, which model, how private")
    click.echo(f"{site}  one site's own words: records, policy, ledger; never leaves the site")
    click.echo(f"\nNext: collegium plan explain {plan}")


def _texts(model: str | None, trainable: str | None, task: str | None) -> dict[str, str]:
    """Return the two files' texts by name."""
    texts = {name: _template(name) for name in FILES}
    if model is None:
        return texts
    from .init_plan import first_task, plan_text, site_text

    plan = plan_text(model, trainable or "head", task or first_task(model))
    return {FILES[0]: plan, FILES[1]: site_text(texts[FILES[1]], model)}


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

"""``collegium``: parse, call the verb, print, and answer with an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from .. import __version__
from .failure import report
from .verbs import Verbs, example


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=example("demo --out demo-run", "plan explain plan.toml"),
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def cli() -> None:
    """Federated learning that a data-protection officer can sign.

    Every verb has --help with an example; those that answer something have --json.
    """


def run(words: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; errors are printed on stderr."""
    line = list(sys.argv[1:] if words is None else words)
    try:
        answer = cli.main(args=line, prog_name="collegium", standalone_mode=False)
        return answer if isinstance(answer, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 64
    except (Exception, KeyboardInterrupt) as error:
        return report(error, as_json="--json" in line)


def main() -> None:
    """Run the command line of this process and exit."""
    sys.exit(run())

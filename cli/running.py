"""What ``demo`` and ``simulate`` share: their flags, the view, and how a run ends."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.errors import Interrupted, OutputExists, UsageError
from .signals import sigterm_interrupts

if TYPE_CHECKING:
    from rich.console import Console

    from ..core.plan import Plan
    from .view import View

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """The flags of a run, as they were typed; None where the plan's own value stands."""

    out: Path
    resume: bool
    rounds: int | None
    epsilon: float | None
    seed: int | None
    seeds: int
    no_privacy: bool
    as_json: bool
    verbose: bool

    def typed(self) -> list[str]:
        """Return the words that type these flags again, --resume among them."""
        words = ["--out", str(self.out)]
        for name in ("rounds", "epsilon", "seed"):
            if (value := getattr(self, name)) is not None:
                words += [f"--{name}", f"{value:g}" if name == "epsilon" else str(value)]
        words += ["--seeds", str(self.seeds)] if self.seeds > 1 else []
        words += ["--no-privacy"] if self.no_privacy else []
        words += ["--json"] if self.as_json else []
        words += ["--verbose"] if self.verbose else []
        return [*words, "--resume"]


def run_options(default_out: str) -> Callable[[F], F]:
    """Return a decorator that gives a command the flags of ``RunFlags``."""
    options = (
        click.option(
            "--out",
            default=default_out,
            show_default=True,
            metavar="DIR",
            type=click.Path(path_type=Path),
            help="Folder of the run.",
        ),
        click.option("--resume", is_flag=True, help="Continue the run in --out, or begin it."),
        click.option("--rounds", type=click.IntRange(1), help="Rounds, in place of the plan's."),
        click.option("--epsilon", type=float, help="Budget of each site, in place of the plan's."),
        click.option("--seed", type=click.IntRange(0), help="Seed of split, sampling and noise."),
        click.option(
            "--seeds",
            type=click.IntRange(1),
            default=1,
            metavar="N",
            help="Run N seeds from --seed on, and show medians.",
        ),
        click.option("--no-privacy", is_flag=True, help="No noise, no epsilon, no guarantee."),
        click.option("--json", "as_json", is_flag=True, help="Print result.json, nothing else."),
        click.option("--verbose", is_flag=True, help="Show what is logged, as it is logged."),
    )

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def run_plan(
    load: Callable[[], Plan],
    flags: RunFlags,
    command: Sequence[str],
    *,
    processes: bool = False,
) -> None:
    """Run a plan, show it, and print its summary or its JSON.

    ``command`` is what was typed before the flags; ``processes`` runs a real federation of
    processes instead of the simulator. Raises ``Interrupted`` with the words that
    continue the run, and ``GateFailed`` after everything is written.
    """
    from rich.console import Console

    from ..core.plan_file import with_overrides
    from .summary import show
    from .view import view_for

    if flags.no_privacy and flags.epsilon is not None:
        raise UsageError(
            "--no-privacy and --epsilon contradict each other",
            why="without privacy there is no epsilon",
            cure="give one of them",
        )
    plan = with_overrides(
        load(),
        rounds=flags.rounds,
        epsilon=flags.epsilon,
        seed=flags.seed,
        privacy=False if flags.no_privacy else None,
    )
    console = Console(highlight=False, markup=False)
    view = view_for(console, silent=flags.as_json)
    logged = logging_on(console, verbose=flags.verbose, stderr=flags.as_json)
    ended = sigterm_interrupts() if processes else nullcontext()
    with _resumable([*command, *flags.typed()]), ended, logged, view:
        _run_processes(plan, flags, view) if processes else _run(plan, flags, view)
    from ..server.result import FILE, read_result, require_gate

    values = read_result(flags.out)
    if flags.as_json:
        click.echo((flags.out / FILE).read_text(encoding="utf-8"), nl=False)
    else:
        show(console, values, flags.out)
    require_gate(values)


def _run_processes(plan: Plan, flags: RunFlags, view: View) -> None:
    """Run one seed as processes; torch and Flower are imported here."""
    from ..simulations.up import up

    if flags.seeds > 1:
        raise UsageError(
            "`up` runs one seed",
            why="it is there to show a true federation, not to compare",
            cure="`collegium simulate PLAN --seeds N` gives the same models faster",
        )
    up(plan, out=flags.out, resume=flags.resume, listener=view)


def _run(plan: Plan, flags: RunFlags, view: View) -> None:
    """Run one seed or several; torch and Flower are imported here."""
    from ..simulations.run import simulate
    from ..simulations.seeds import holds_seeds, simulate_seeds

    if flags.seeds > 1:
        simulate_seeds(
            plan,
            count=flags.seeds,
            out=flags.out,
            resume=flags.resume,
            listener=view,
            on_seed=view.seed,
        )
        return
    if flags.resume and holds_seeds(flags.out):
        raise OutputExists(
            f"{flags.out} holds a run over several seeds",
            why="its seeds are kept in folders of their own",
            cure="resume it with the --seeds that it began with, or choose another --out",
        )
    simulate(plan, out=flags.out, resume=flags.resume, listener=view)


@contextmanager
def _resumable(words: Sequence[str]) -> Generator[None]:
    """Turn Ctrl-C, and a stop that the engine calls resumable, into the words that go on."""
    again = subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(
            "Interrupted", why="Every finished round is kept", cure=f"type {again} to go on"
        ) from None
    except Interrupted as error:
        raise Interrupted(error.what, why=error.why, cure=f"type {again} to go on") from None


@contextmanager
def logging_on(console: Console, *, verbose: bool, stderr: bool) -> Generator[None]:
    """Show log lines above the view (or on stderr), but only when --verbose asks.

    Nothing else may print them: libraries put handlers on the root logger, which would write
    into the live table.
    """
    logger = logging.getLogger(f"{__package__}".partition(".")[0])
    handler = _ConsoleHandler(console, stderr=stderr) if verbose else None
    before, logger.propagate = logger.propagate, False
    if handler:
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.propagate = before
        if handler:
            logger.removeHandler(handler)


class _ConsoleHandler(logging.Handler):
    """Prints log records where the view is, so that neither tears the other."""

    def __init__(self, console: Console, *, stderr: bool) -> None:
        super().__init__()
        self._console, self._stderr = console, stderr

    def emit(self, record: logging.LogRecord) -> None:
        from rich.text import Text

        from ..server.words import clean

        line = clean(f"{record.levelname.lower()} {record.name}: {record.getMessage()}")
        if self._stderr:
            click.echo(line, err=True)
        else:
            self._console.print(Text(line, style="dim"), soft_wrap=True)

"""The same plan under several seeds: each a complete run, together one result of medians."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import OutputExists, UsageError
from ..core.plan import Plan
from ..core.plan_file import with_overrides
from ..server.report import write_report
from ..server.result import combine, read_result, write_result
from .listener import Listener
from .records import simulation_of
from .run import simulate
from .workspace import is_finished

FOLDER = "seeds"


def simulate_seeds(
    plan: Plan,
    *,
    count: int,
    out: Path,
    resume: bool = False,
    listener: Listener | None = None,
    on_seed: Callable[[int, int, int], None] | None = None,
) -> dict[str, Any]:
    """Run ``count`` seeds from the plan's own on, each in ``out/seeds/SEED``; return the medians.

    ``on_seed`` hears (seed, number, count) before each. Finished seeds are skipped with
    ``resume``. Raises as ``simulate``.
    """
    if count < 1:
        raise UsageError(f"{count} seeds cannot be run", cure="name at least one with --seeds")
    first = simulation_of(plan).seed
    seeds = range(first, first + count)
    _check(out, [str(seed) for seed in seeds], resume=resume)
    for number, seed in enumerate(seeds, 1):
        if on_seed:
            on_seed(seed, number, count)
        simulate(
            with_overrides(plan, seed=seed),
            out=out / FOLDER / str(seed),
            resume=resume,
            listener=listener,
        )
    write_result(out, combine([read_result(out / FOLDER / str(seed)) for seed in seeds]))
    write_report(out, out / "report.html")
    return read_result(out)


def holds_seeds(out: Path) -> bool:
    """Return whether ``out`` is a run over several seeds."""
    return (out / FOLDER).is_dir()


def _check(out: Path, seeds: list[str], *, resume: bool) -> None:
    """Raise ``OutputExists`` unless ``out`` is empty, or resumed and a run over these seeds."""
    if out.is_file():
        raise OutputExists(f"{out} is a file", cure="name a folder with --out")
    held = {path.name for path in out.iterdir()} if out.is_dir() else set[str]()
    if held and not resume:
        raise OutputExists(
            f"{out} is not empty",
            why="a run never overwrites another",
            cure="choose another --out, or --resume the run that it holds",
        )
    if held and not holds_seeds(out):
        raise OutputExists(
            f"{out} holds a run with one seed",
            why="several seeds are kept in folders of their own",
            cure="choose another --out, or resume without --seeds",
        )
    if held and not {path.name for path in (out / FOLDER).iterdir()} <= set(seeds):
        raise OutputExists(
            f"{out} holds other seeds than {seeds[0]} to {seeds[-1]}",
            why="its medians would be over another set",
            cure="resume with the --seed and --seeds that it began with",
        )
    if held and is_finished(out):
        found = read_result(out)["seeds"]
        if [str(seed) for seed in found] != seeds:
            raise OutputExists(
                f"{out} is finished with {len(found)} seeds",
                why="a finished run is left as it is",
                cure="choose another --out",
            )

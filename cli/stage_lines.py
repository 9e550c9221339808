"""Where a long verb is: one line that changes on a terminal, one line per stage in a log."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console


@contextmanager
def stage_lines(*, quiet: bool) -> Generator[Callable[[str, float], None]]:
    """Yield a listener for (stage, share done); it writes to stderr, or nothing when ``quiet``."""
    console = Console(stderr=True)
    seen: list[str] = []
    if quiet:
        yield lambda _stage, _share: None
        return
    if not console.is_terminal:

        def line(stage: str, _share: float) -> None:
            if stage not in seen:
                seen.append(stage)
                console.print(stage)

        yield line
        return
    with console.status("reading the run") as status:
        yield lambda stage, share: status.update(f"{stage} {share:.0%}" if share else stage)

"""The Flower ServerApp around one run: what it drives is given, what it finds is handed back."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from ..core.layout import Vector
from .drive import Drive, Task
from .grid_post import GridPost

Outcome = Callable[[Vector, dict[str, dict[str, float]]], None]


def make_server_app(task: Task, outcome: Outcome, *, at_once: int | None = None) -> ServerApp:
    """Return a ServerApp that drives ``task`` and hands ``outcome`` the model and site metrics.

    ``at_once`` bounds how many replies a Grid may hold in memory (see ``GridPost``).
    """
    app = ServerApp()

    @app.main()
    def main(grid: Grid, context: Context) -> None:
        del context
        drive = Drive(GridPost(grid, at_once=at_once), task)
        vector = drive.run()
        outcome(vector, drive.reports(vector))

    del main
    return app

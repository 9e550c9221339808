"""The ServerApp of a real federation: opens the job that it is told, and drives it to its end.

Flower loads this module from the installed package and runs it in a process of its own, once
per Flower run; a job may need several of them. All that lasts is in the run's folder.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from ..core.errors import CollegiumError, Interrupted, InvalidInput, MissingInput
from ..core.logs import logging_to
from ._flwr_pace import fetch_promptly
from .coordinator_state import STATE_VARIABLE, Job, hold_run, read_job
from .events import EventLog
from .processes import die_with_parent
from .resumable import is_resumable

logger = logging.getLogger(__name__)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run or resume the job that the run config names."""
    die_with_parent()
    fetch_promptly()
    run_job(grid, this_job(context), run_id=int(context.run_id))


def this_job(context: Context) -> Job:
    """Return the job of this Flower run.

    The run config is settings that were submitted, so it is only a name; what it names was
    written by this coordinator. Raises ``InvalidInput`` or ``MissingInput``.
    """
    state = os.environ.get(STATE_VARIABLE, "")
    if not state:
        raise MissingInput(
            f"{STATE_VARIABLE} is not set",
            why="`collegium coordinator start` tells the ServerApp through it where jobs are",
            cure="start SuperExec with `collegium coordinator start`",
        )
    name = context.run_config.get("job", "")
    if not isinstance(name, str):
        raise InvalidInput("the run config's job is not a text", cure="submit it again")
    return read_job(Path(state), name)


def run_job(grid: Grid, job: Job, *, run_id: int) -> None:
    """Drive a job on any Grid; how it ends is in events.jsonl, whichever way it ends."""
    if not job.run.is_dir():
        raise MissingInput(
            f"{job.run} is not there", cure="restore the run's folder, then --resume"
        )
    with hold_run(job.run, run_id), logging_to(job.run):
        events = EventLog(job.run)
        try:
            from .federation_drive import drive_job

            drive_job(grid, job, events, run_id=run_id)
        except CollegiumError as error:
            logger.warning("the run stopped: %s", error.message())
            events.write(
                "stopped",
                run_id=run_id,
                exit_code=error.exit_code,
                what=error.what if hasattr(error, "what") else "",
                why=error.why,
                cure=error.cure,
            )
            raise
        except Exception as error:
            logger.exception("the ServerApp failed")
            events.write(
                "stopped",
                run_id=run_id,
                exit_code=Interrupted.exit_code if is_resumable(error) else 70,
                what=f"the ServerApp failed ({type(error).__name__})",
                why="its traceback is in log.jsonl in the run's folder",
                cure="--resume goes on from the last durable round",
            )
            raise
        finally:
            events.close()

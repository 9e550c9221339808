"""The one place that starts Flower's SuperNode in a process, at our pace.

Its loop sleeps a fixed 3 s where there was no message and .5 s where a reply is not there yet,
and waits at least 1 s for an object that is still on its way; all are constants in the source.
Its heartbeat of 30 s keeps a killed SuperNode's place taken for 60 s, in which no other is let
in. Only these constants are made smaller; nothing else changes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

from flwr.supercore import heartbeat
from flwr.supercore.inflatable.inflatable_utils import pull_objects
from flwr.supercore.run import RunNotRunningException
from flwr.supernode import fleet_http_connection as fleet
from flwr.supernode import start_client_internal as loop
from flwr.supernode.cli import flower_supernode

from .supernode import HEARTBEAT_S

FLOWER_POLL_S = 3.0
FLOWER_REPLY_S = 0.5
REPLY_S = 0.05
OBJECT_S = 0.05


def start(*, poll_s: float) -> None:
    """Run ``flower-supernode`` with this process's arguments, asking for work every ``poll_s``."""

    def sleep(seconds: float) -> None:
        pause = {FLOWER_POLL_S: poll_s, FLOWER_REPLY_S: REPLY_S}.get(float(seconds), seconds)
        time.sleep(pause)

    names = {name: getattr(time, name) for name in dir(time) if not name.startswith("_")}
    setattr(loop, "time", SimpleNamespace(**(names | {"sleep": sleep})))  # noqa: B010
    setattr(loop, "pull_objects", _pull_objects)  # noqa: B010
    for module in (fleet, heartbeat):
        setattr(module, "HEARTBEAT_DEFAULT_INTERVAL", HEARTBEAT_S)  # noqa: B010
    flower_supernode()


def _pull_objects(
    object_ids: list[str], pull_object_fn: Callable[[str], bytes]
) -> dict[str, bytes]:
    """Fetch a message's objects; where the run has ended meanwhile, the message's task ends, too.

    Flower's own exception passes by the handler that ends the task: whoever had taken it would
    wait two hours for objects that never come.
    """
    try:
        return pull_objects(object_ids, pull_object_fn, initial_backoff=OBJECT_S)
    except RunNotRunningException as error:
        raise RuntimeError("the Flower run has ended") from error

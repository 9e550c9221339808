"""The simulator's touch of Flower's internals: identities and message ids of a real runtime."""

from __future__ import annotations

from flwr.app import Context, Message, RecordDict
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1
SERVER_NODE = 1


def become_server() -> Run:
    """Give this process the identity that Flower's runtime would; return an empty run.

    Outside Flower's own processes ``Message(...)`` raises ``RuntimeError`` without it.
    """
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, RUN_ID, SERVER_NODE
    return Run.create_empty(run_id=RUN_ID)


def stamp(message: Message, message_id: str, *, reply_to: str | None = None) -> None:
    """Give a message the id that a SuperLink would, and a reply the question it belongs to."""
    message.metadata.__dict__["_message_id"] = message_id
    if reply_to is not None:
        message.metadata.__dict__["_reply_to_message_id"] = reply_to


def context_of(node: int, partition: int, partitions: int) -> Context:
    """Return a node's persistent context, with Flower's own partition keys."""
    return Context(
        run_id=RUN_ID,
        node_id=node,
        node_config={"partition-id": partition, "num-partitions": partitions},
        state=RecordDict(),
        run_config={},
    )

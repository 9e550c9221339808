"""The site's touch of Flower's Runtime API: tasks in, signed replies out, nothing unpacked."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from flwr.app import Context, Error, Message
from flwr.common.constant import SubStatus
from flwr.proto.runtime_pb2 import AcquireTaskRequest, SendTaskHeartbeatRequest
from flwr.supercore.constant import TaskType
from flwr.supercore.heartbeat import HeartbeatSender
from flwr.supercore.inflatable.inflatable_utils import pull_and_inflate_object_from_tree
from flwr.supercore.interceptors import (
    RuntimeTokenHttpInterceptor,
    RuntimeVersionHttpInterceptor,
    SuperExecAuthHttpInterceptor,
)
from flwr.supercore.protobuf.client import ProtobufClientInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime import run_clientapp
from flwr.supernode.runtime.run_clientapp import pull_task_input, push_message, push_task_output

from ..core.digest import sha256_hex

logger = logging.getLogger(__name__)

CLIENT_APP_RAISED = 2
_COMPONENT = "flwr-clientapp"
_OBJECT_S = 0.05
_ACQUIRE = frozenset({"/flwr.proto.Runtime/AcquireTask"})


class LinkDown(Exception):
    """The SuperNode does not answer; it may be starting, or restarting after a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeAddress:
    """Where the SuperNode's Runtime API is: a loopback port, or a relay's Unix socket.

    ``secret`` is the one that the SuperNode was started with, None where it asks for none.
    """

    port: int
    socket: Path | None = None
    secret: bytes | None = None


class Task:
    """One message that the SuperNode hands over; finish it with ``reply`` or ``refuse``."""

    def __init__(self, client: RuntimeHttpClient) -> None:
        self._client = client
        self._heart = HeartbeatSender(lambda: _beat(client))
        self._heart.start()
        try:
            self.message, self.context, _, bundle = pull_task_input(client)
        except BaseException:
            self._end()
            raise
        self.bundle_sha256 = sha256_hex(bundle.content)

    def reply(self, message: Message) -> None:
        """Hand the answer to the SuperNode; raises ``LinkDown`` when it is gone."""
        self._finish(message, SubStatus.COMPLETED)

    def refuse(self, reason: str) -> None:
        """Answer with one fixed error; ``reason`` is a constant of ours."""
        error = Message(Error(code=CLIENT_APP_RAISED, reason=reason), reply_to=self.message)
        self._finish(error, SubStatus.COMPLETED)

    def drop(self) -> None:
        """Leave the task; its lease at the SuperNode runs out."""
        self._end()

    def _finish(self, message: Message, status: str) -> None:
        _stamp_as_leaving(message, self.message)
        try:
            push_message(self._client, message, self.context)
            push_task_output(self._client, self.context, status, "")
        except Exception as error:  # Flower's own kinds, too
            raise LinkDown(type(error).__name__) from None
        finally:
            self._end()

    def _end(self) -> None:
        if self._heart.is_running:
            self._heart.stop()
        self._client.close()


class RuntimeLink:
    """Claims tasks from one SuperNode, one at a time; a context manager."""

    def __init__(self, address: RuntimeAddress) -> None:
        self._address = address
        _wait_briefly_for_objects()
        more: list[ProtobufClientInterceptor] = []
        if address.secret is not None:
            more.append(
                SuperExecAuthHttpInterceptor(
                    master_secret=address.secret, protected_methods=_ACQUIRE
                )
            )
        self._client = self._connect(more)

    def next_task(self) -> Task | None:
        """Return the oldest task, None when there is none; raises ``LinkDown``."""
        if self._address.socket and not self._address.socket.exists():
            raise LinkDown("no relay")
        request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        try:
            found = self._client.AcquireTask(request)
            if not (found.HasField("task") and found.token):
                return None
            return Task(self._connect([RuntimeTokenHttpInterceptor(found.token)]))
        except Exception as error:  # Flower's own kinds, too: a task that cannot be fetched is none
            raise LinkDown(type(error).__name__) from None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _connect(self, more: list[ProtobufClientInterceptor]) -> RuntimeHttpClient:
        client = RuntimeHttpClient.from_server_address(
            server_address=f"127.0.0.1:{self._address.port}",
            insecure=True,
            root_certificates=None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name=_COMPONENT), *more],
        )
        transport = (
            httpx.HTTPTransport(uds=str(self._address.socket)) if self._address.socket else None
        )
        # No proxy of the environment stands between a site and its own SuperNode.
        client._client.close()
        client._client = httpx.Client(transport=transport, timeout=60.0, trust_env=False)
        return client


def _stamp_as_leaving(reply: Message, question: Message) -> None:
    """Date a reply when it leaves: Flower notes when it was made, and so how long that took."""
    now = time.time()
    reply.metadata.created_at = now
    reply.metadata.ttl = question.metadata.ttl - (now - question.metadata.created_at)


def _wait_briefly_for_objects() -> None:
    """Look again after .05 s, not 1 s, for an object that the SuperNode is still fetching."""
    quick = partial(pull_and_inflate_object_from_tree, initial_backoff=_OBJECT_S)
    setattr(run_clientapp, "pull_and_inflate_object_from_tree", quick)  # noqa: B010


def _beat(client: RuntimeHttpClient) -> bool:
    """Keep the lease; Flower's own beat would interrupt the whole process when it is lost."""
    try:
        return bool(client.SendTaskHeartbeat(SendTaskHeartbeatRequest()).success)
    except (httpx.HTTPError, RuntimeError):
        return False


__all__ = ["Context", "LinkDown", "RuntimeAddress", "RuntimeLink", "Task"]

"""The control plane of a site process: gRPC on a Unix socket, with the standard health service."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from concurrent import futures
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from ..core.errors import CollegiumError, NotAvailable, NotLoaded, Refused
from . import control_pb2 as pb
from .sockets import answers, check_socket_path, remove_stale_socket

logger = logging.getLogger(__name__)

SOCKET = Path("run") / "site.sock"
"""Where the socket lies in the state folder."""
_SERVICE = "collegium.site.v1.SiteControl"
_WAIT_S = 30.0
_JOB = re.compile(r"[0-9a-z-]{1,64}")

Phase = Literal["STARTING", "READY", "TRAINING", "PAUSED", "STOPPING"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a site stands; the fields of ``StatusReply`` in control.proto, ``phase`` by name."""

    phase: Phase = "STARTING"
    site: str = ""
    version: str = ""
    plan_sha256: str = ""
    simulated: bool = False
    ledger_head: str = ""
    epsilon: float = 0.0
    max_epsilon: float = 0.0
    job: str = ""
    round: int = 0
    attempt: int = 0
    started_at: float = 0.0
    supernode: str = "elsewhere"
    supernode_restarts: int = 0
    cancelled: tuple[str, ...] = ()
    device: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """Plan, roster and site.toml, by digest: what somebody read, or what a site has loaded."""

    plan_sha256: str
    roster_sha256: str
    words_sha256: str


class Board(Protocol):
    """What the control plane may ask of a site process."""

    def standing(self) -> Standing:
        """Return where the site stands."""
        ...

    def approve(self, read: Loaded) -> None:
        """Approve what is loaded and go on; raises ``NotLoaded`` when ``read`` is not that."""
        ...

    def withdraw(self) -> None:
        """Take the approval back and pause."""
        ...

    def cancel(self, job: str) -> bool:
        """Stop a job for good; return whether the ledger has such a job."""
        ...

    def rotate(self) -> str:
        """Make a new signing key and pause; return its fingerprint."""
        ...


class ControlServer:
    """Serves a board on a Unix socket until it is closed."""

    def __init__(self, board: Board, path: Path) -> None:
        """Listen at ``path``, whose folder is made 0750 and whose own mode is 0600.

        Raises ``UsageError`` for a path that no socket can have and ``Refused`` when another
        process answers there.
        """
        check_socket_path(path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        remove_stale_socket(path)
        self._path, self._board = path, board
        self._server = grpc.server(futures.ThreadPoolExecutor(4, thread_name_prefix="control"))
        self._server.add_generic_rpc_handlers((_handlers(board),))
        self._health: Any = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self.serving(ready=False)
        before = os.umask(0o177)  # the socket is never wider than its owner, not for a moment
        try:
            self._server.add_insecure_port(f"unix:{path}")
        finally:
            os.umask(before)
        self._server.start()

    def serving(self, *, ready: bool) -> None:
        """Tell the health service whether questions of the coordinator are answered."""
        status = health_pb2.HealthCheckResponse
        value = status.SERVING if ready else status.NOT_SERVING
        for name in ("", _SERVICE):
            self._health.set(name, value)

    def close(self) -> None:
        """Stop listening and remove the socket."""
        self._server.stop(grace=1.0).wait()
        self._path.unlink(missing_ok=True)


class ControlClient:
    """Asks the site process behind a Unix socket; a context manager is not needed."""

    def __init__(self, path: Path) -> None:
        """Raises ``NotAvailable`` (69) when no process listens there."""
        check_socket_path(path)
        if not answers(path):
            raise NotAvailable(
                "no site process is running here",
                why=f"nobody answers at {path}",
                cure="start it with `collegium site start SITE.toml`, or name its site.toml",
            )
        # A proxy of the environment must not stand between an administrator and the socket.
        self._channel: Any = grpc.insecure_channel(
            f"unix:{path}", options=(("grpc.enable_http_proxy", 0),)
        )

    def standing(self) -> Standing:
        """Return where the site stands."""
        reply = self._call("Status", pb.message("StatusRequest")())
        values = {name: getattr(reply, name) for name in asdict(Standing())}
        values["phase"] = pb.name_of("Phase", reply.phase)
        values["cancelled"] = tuple(reply.cancelled)
        return Standing(**values)

    def approve(self, read: Loaded) -> None:
        """Approve what lies on disk, as ``read``; raises ``Refused`` when the site does not."""
        self._done("Approve", pb.message("ApproveRequest")(**asdict(read)))

    def withdraw(self) -> None:
        """Take the approval back."""
        self._done("Withdraw", pb.message("WithdrawRequest")())

    def cancel(self, job: str) -> bool:
        """Stop a job for good; return whether the site's ledger has such a job."""
        return bool(self._done("Cancel", pb.message("CancelRequest")(job=job)).known)

    def rotate(self) -> str:
        """Return the fingerprint of the site's new key."""
        return str(self._done("RotateKeys", pb.message("RotateKeysRequest")()).public_key)

    def healthy(self) -> bool:
        """Return what the standard health service says."""
        stub: Any = health_pb2_grpc.HealthStub(self._channel)
        reply = stub.Check(health_pb2.HealthCheckRequest(), timeout=_WAIT_S)
        return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def _done(self, method: str, request: Any) -> Any:
        reply = self._call(method, request)
        if (code := pb.name_of("Code", reply.code)) == "NOT_LOADED":
            raise not_loaded()
        if code != "OK":
            raise Refused(
                f"the site did not do it ({code or 'unknown code'})",
                why="its own log says more",
                cure="`collegium site status SITE.toml` shows where it stands",
            )
        return reply

    def _call(self, method: str, request: Any) -> Any:
        described = pb.SERVICE.methods_by_name[method]
        ask = self._channel.unary_unary(
            f"/{_SERVICE}/{method}",
            request_serializer=_to_bytes,
            response_deserializer=pb.message(described.output_type.name).FromString,
        )
        try:
            return ask(request, timeout=_WAIT_S)
        except grpc.RpcError as error:
            code: Any = error
            raise NotAvailable(
                f"the site process did not answer ({code.code().name})",
                why="it is stopping, overloaded, or of another version",
                cure="look at its log, then ask again",
            ) from None


def not_loaded() -> NotLoaded:
    """Return the refusal to approve what the running site has not loaded."""
    return NotLoaded(
        "the running site has loaded something else than what lies here",
        why="plan, roster or site.toml was changed since it started, so approving would not be "
        "about what you have read",
        cure="stop the site and start it again, then approve",
    )


def _handlers(board: Board) -> Any:
    def status(request: Any) -> Any:
        del request
        values = asdict(board.standing())
        values["phase"] = pb.number("Phase", values["phase"])
        return pb.message("StatusReply")(**values)

    def rotate(request: Any) -> Any:
        del request
        return pb.message("RotateKeysReply")(code=_OK, public_key=board.rotate())

    def cancel(request: Any) -> Any:
        reply = pb.message("CancelReply")
        if not _JOB.fullmatch(request.job):
            return reply(code=pb.number("Code", "BAD_JOB"))
        return reply(code=_OK, known=board.cancel(request.job))

    def approve(request: Any) -> Any:
        board.approve(Loaded(**{each.name: getattr(request, each.name) for each in fields(Loaded)}))
        return _done("OK")

    def withdraw(request: Any) -> Any:
        del request
        board.withdraw()
        return _done("OK")

    methods: dict[str, Callable[[Any], Any]] = {
        "Status": status,
        "Approve": approve,
        "Withdraw": withdraw,
        "Cancel": cancel,
        "RotateKeys": rotate,
    }
    return grpc.method_handlers_generic_handler(
        _SERVICE, {name: _handler(name, answer) for name, answer in methods.items()}
    )


def _handler(name: str, answer: Callable[[Any], Any]) -> Any:
    described = pb.SERVICE.methods_by_name[name]
    reply_type = pb.message(described.output_type.name)

    def safe(request: Any, context: Any) -> Any:
        """Answer with a fixed code whatever happens: an exception's text may hold anything."""
        code = "NOT_POSSIBLE"
        try:
            return answer(request)
        except CollegiumError as error:
            code = "NOT_LOADED" if isinstance(error, NotLoaded) else code
            logger.warning("%s was not possible: %s", name, error)
        except Exception:
            logger.exception("%s failed", name)
        if name == "Status":
            context.abort(grpc.StatusCode.UNAVAILABLE, "NOT_READY")
        return reply_type(code=pb.number("Code", code))

    return grpc.unary_unary_rpc_method_handler(
        safe,
        request_deserializer=pb.message(described.input_type.name).FromString,
        response_serializer=_to_bytes,
    )


def _to_bytes(message: Any) -> bytes:
    return message.SerializeToString()


def _done(code: str) -> Any:
    return pb.message("Done")(code=pb.number("Code", code))


_OK = pb.number("Code", "OK")

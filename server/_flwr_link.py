"""The coordinator's touch of Flower's Control API: register sites, submit, watch, stop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
)
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from ..core.digest import PREFIX, sha256_hex
from ..core.errors import Interrupted
from .resumable import is_resumable

_COMPONENT = "flwr-cli"
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """One Flower run; ours may need several of them, one after each crash."""

    run_id: int
    status: str
    substatus: str
    details: str

    @property
    def over(self) -> bool:
        """Return whether this Flower run will do nothing more."""
        return self.status == "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """One registered SuperNode; ``status`` is Flower's word, like online or offline."""

    node_id: int
    status: str
    public_key: bytes


class Control:
    """A client of one SuperLink's Control API; a context manager."""

    def __init__(self, address: str, ca: Path) -> None:
        """``address`` is HOST:PORT; ``ca`` the certificate that the SuperLink's must chain to."""
        self._client = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=False,
            root_certificates=ca.read_bytes(),
            interceptors=[RuntimeVersionHttpInterceptor(component_name=_COMPONENT)],
        )

    def register(self, public_key: str, name: str) -> None:
        """Let the SuperNode with this OpenSSH public key connect; once is as good as twice."""
        raw = pem_of(public_key)
        try:
            self._ask(
                lambda: self._client.RegisterNode(RegisterNodeRequest(public_key=raw, name=name))
            )
        except httpx.HTTPStatusError as error:
            if not self._is_registered(error):
                raise

    def submit(self, app: bytes, config: Mapping[str, str]) -> int:
        """Start a Flower run of this bundle; return its id."""
        fab = Fab(sha256_hex(app).removeprefix(PREFIX), app, {})
        request = StartRunRequest(
            fab=fab_to_proto(fab),
            override_config=user_config_to_proto(dict(config)),
            federation="",
            app_spec="",
        )
        return int(self._ask(lambda: self._client.StartRun(request)).run_id)

    def runs(self) -> list[RunInfo]:
        """Return the runs that the SuperLink knows, oldest first."""
        found = self._ask(lambda: self._client.ListRuns(ListRunsRequest())).run_dict
        return [
            RunInfo(
                run_id=int(run_id),
                status=run.status.status,
                substatus=run.status.sub_status,
                details=run.status.details,
            )
            for run_id, run in sorted(found.items(), key=lambda item: item[1].pending_at)
        ]

    def run(self, run_id: int) -> RunInfo | None:
        """Return one run, None when the SuperLink does not know it."""
        return next((run for run in self.runs() if run.run_id == run_id), None)

    def stop(self, run_id: int) -> None:
        """Stop a Flower run; our own round store is not touched."""
        self._ask(lambda: self._client.StopRun(StopRunRequest(run_id=run_id)))

    def nodes(self) -> list[NodeInfo]:
        """Return the registered SuperNodes."""
        found = self._ask(lambda: self._client.ListNodes(ListNodesRequest())).nodes_info
        return [
            NodeInfo(node_id=int(n.node_id), status=str(n.status), public_key=bytes(n.public_key))
            for n in found
        ]

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

    @staticmethod
    def _is_registered(error: httpx.HTTPStatusError) -> bool:
        return "already" in error.response.text.lower()

    @staticmethod
    def _ask(call: Callable[[], T]) -> T:
        try:
            return call()
        except httpx.TransportError as error:
            raise _away(type(error).__name__) from None
        except httpx.HTTPStatusError as error:
            if is_resumable(error):
                raise _away(f"it answers {error.response.status_code}") from None
            raise


def _away(why: str) -> Interrupted:
    return Interrupted(
        "the SuperLink cannot be reached",
        why=why,
        cure="`collegium coordinator start DIR` starts it; then try again",
    )


def pem_of(public_key: str) -> bytes:
    """Return an OpenSSH public key as the PEM that Flower stores and compares."""
    key = load_ssh_public_key(public_key.encode())
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

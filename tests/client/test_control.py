"""The control plane: a documented .proto, a private socket, fixed codes and no more."""

import re
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import grpc
import pytest

from collegium.client import control, control_pb2
from collegium.client.control import (
    ControlClient,
    ControlServer,
    Loaded,
    NotLoaded,
    Standing,
    not_loaded,
)
from collegium.core.errors import NotAvailable, Refused, UsageError

CANARY = "canary-patient-4711"
READ = Loaded(plan_sha256="sha256:p", roster_sha256="sha256:r", words_sha256="sha256:w")
PROTO = Path(control.__file__).with_name("control.proto")


@dataclass
class Puppet:
    """A board that remembers what it was told."""

    told: list[str] = field(default_factory=list)
    now: Standing = field(
        default_factory=lambda: Standing(
            phase="TRAINING", site="north", version="1", plan_sha256="sha256:p", simulated=True,
            ledger_head="h", epsilon=1.5, max_epsilon=8.0, job="j", round=3, attempt=1,
            started_at=1e9, supernode="running", supernode_restarts=2, cancelled=("a", "b"),
            device="cpu",
        )
    )  # fmt: skip
    broken: Exception | None = None
    jobs: tuple[str, ...] = ("0" * 32,)

    def standing(self) -> Standing:
        if self.broken:
            raise self.broken
        return self.now

    def approve(self, read: Loaded) -> None:
        if self.broken:
            raise self.broken
        if read != READ:
            raise not_loaded()
        self.told.append("approve")

    def withdraw(self) -> None:
        self.told.append("withdraw")

    def cancel(self, job: str) -> bool:
        self.told.append(f"cancel {job}")
        return job in self.jobs

    def rotate(self) -> str:
        self.told.append("rotate")
        return "ed25519:new"


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="cg-") as folder:
        yield Path(folder) / "run" / "site.sock"


@pytest.fixture
def served(path: Path) -> Iterator[tuple[Puppet, ControlServer, ControlClient]]:
    puppet = Puppet()
    server = ControlServer(puppet, path)
    client = ControlClient(path)
    yield puppet, server, client
    client.close()
    server.close()


Served = tuple[Puppet, ControlServer, ControlClient]


def test_every_call_arrives(served: Served) -> None:
    puppet, _, client = served
    client.approve(READ)
    client.withdraw()
    assert client.cancel("0" * 32)
    assert client.rotate() == "ed25519:new"
    assert puppet.told == ["approve", "withdraw", "cancel " + "0" * 32, "rotate"]


def test_a_standing_comes_back_whole(served: Served) -> None:
    puppet, _, client = served
    assert client.standing() == puppet.now
    for phase in ("STARTING", "READY", "PAUSED", "STOPPING"):
        puppet.now = replace(puppet.now, phase=phase)
        assert client.standing().phase == phase


def test_a_job_that_the_ledger_has_not_is_cancelled_and_told(served: Served) -> None:
    puppet, _, client = served
    assert not client.cancel("1" * 32)
    assert puppet.told == ["cancel " + "1" * 32]


@pytest.mark.parametrize("field", ["plan_sha256", "roster_sha256", "words_sha256"])
def test_approving_something_else_has_its_own_answer(served: Served, field: str) -> None:
    puppet, _, client = served
    with pytest.raises(NotLoaded, match="start it again"):
        client.approve(replace(READ, **{field: "sha256:x"}))
    with pytest.raises(NotLoaded):  # an older client, which says nothing
        client.approve(Loaded(plan_sha256="", roster_sha256="", words_sha256=""))
    assert puppet.told == []


@pytest.mark.parametrize("job", ["", "../x", "A", "a b", "x" * 65])
def test_what_is_no_job_is_not_cancelled(served: Served, job: str) -> None:
    puppet, _, client = served
    with pytest.raises(Refused, match="BAD_JOB"):
        client.cancel(job)
    assert puppet.told == []


@pytest.mark.parametrize("error", [RuntimeError(CANARY), Refused(CANARY)])
def test_no_exceptions_text_crosses_the_socket(
    served: Served, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    puppet, _, client = served
    puppet.broken = error
    with pytest.raises(Refused) as refused:
        client.approve(READ)
    assert CANARY not in refused.value.message() and "NOT_POSSIBLE" in refused.value.message()
    with pytest.raises(NotAvailable) as away:
        client.standing()
    assert CANARY not in away.value.message()
    assert CANARY in caplog.text  # the site's own log says it


def test_the_standard_health_service(served: Served) -> None:
    _, server, client = served
    assert not client.healthy()
    server.serving(ready=True)
    assert client.healthy()
    server.serving(ready=False)
    assert not client.healthy()


def test_the_socket_is_its_owners_alone(served: Served, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not stat.S_IMODE(path.parent.stat().st_mode) & 0o027


def test_two_processes_of_one_site_are_refused(served: Served, path: Path) -> None:
    with pytest.raises(Refused, match="running"):
        ControlServer(Puppet(), path)
    served[2].approve(READ)  # and the first one goes on


def test_a_socket_that_a_killed_process_left_is_replaced(path: Path) -> None:
    import socket

    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(NotAvailable):
        ControlClient(path)
    server = ControlServer(Puppet(), path)
    ControlClient(path).close()
    server.close()
    assert not path.exists()


def test_nobody_there_is_69(path: Path) -> None:
    with pytest.raises(NotAvailable) as caught:
        ControlClient(path)
    assert caught.value.exit_code == 69


def test_a_path_of_107_bytes_works_and_one_more_is_64() -> None:
    with tempfile.TemporaryDirectory(prefix="cg-") as folder:
        longest = Path(folder) / ("x" * (107 - len(folder) - 1))
        ControlServer(Puppet(), longest).close()
        with pytest.raises(UsageError):
            ControlServer(Puppet(), longest.with_name(longest.name + "x"))


# --- the .proto and its module ----------------------------------------------------------------


def blocks(kind: str) -> dict[str, str]:
    text = re.sub(r"//[^\n]*", "", PROTO.read_text("utf-8"))
    return dict(re.findall(kind + r"\s+(\w+)\s*\{([^}]*)\}", text))


def test_messages_of_both_files_agree() -> None:
    """Without protoc: names, numbers, types and labels of every field."""
    types = {"string": 9, "bool": 8, "double": 1, "int64": 3}
    described = control_pb2.DESCRIPTOR.message_types_by_name
    written = blocks("message")
    assert set(written) == set(described)
    for name, body in written.items():
        found = {
            f.name: (f.number, f.is_repeated, f.enum_type.name if f.enum_type else f.type)
            for f in described[name].fields
        }
        wanted = {
            field_name: (int(number), bool(repeated), types.get(kind, kind))
            for repeated, kind, field_name, number in re.findall(
                r"(repeated\s+)?(\w+)\s+(\w+)\s*=\s*(\d+);", body
            )
        }
        assert found == wanted


def test_enums_and_methods_of_both_files_agree() -> None:
    for name, body in blocks("enum").items():
        values = control_pb2.DESCRIPTOR.enum_types_by_name[name].values
        wanted = {key: int(number) for key, number in re.findall(r"(\w+)\s*=\s*(\d+);", body)}
        assert {value.name: value.number for value in values} == wanted
    text = PROTO.read_text("utf-8")
    wanted = set(re.findall(r"rpc (\w+)\((\w+)\) returns \((\w+)\);", text))
    found = {(m.name, m.input_type.name, m.output_type.name) for m in control_pb2.SERVICE.methods}
    assert found == wanted and len(found) == 5
    assert control_pb2.SERVICE.full_name == "collegium.site.v1.SiteControl"


def test_a_standing_is_a_status_reply() -> None:
    reply = control_pb2.DESCRIPTOR.message_types_by_name["StatusReply"]
    assert {each.name for each in fields(Standing)} == {field.name for field in reply.fields}


def test_any_grpc_client_can_ask(served: Served, path: Path) -> None:
    """The wire names are those of the .proto: a client of another language finds them."""
    channel = grpc.insecure_channel(f"unix:{path}")
    ask = channel.unary_unary("/collegium.site.v1.SiteControl/Status")
    assert b"north" in ask(b"", timeout=10)
    channel.close()

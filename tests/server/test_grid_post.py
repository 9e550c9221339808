"""The post over a Grid: a site's words and Flower's own failures, by question, never by source."""

import threading
import tracemalloc
from collections.abc import Callable, Iterable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.superlink.grid import http_grid
from httpx import ConnectError, HTTPStatusError, Request, Response

from collegium.core.messages import Sealed
from collegium.server._flwr import pack
from collegium.server._flwr_pace import at_most, fault_of, fetch_promptly, pull
from collegium.server.grid_post import GridPost
from collegium.server.post import Lost, Malformed, PostDown
from collegium.simulations._flwr import stamp
from collegium.simulations.grid import LocalGrid

SEALED = Sealed(header=b"{}", signature=b"\x01" * 64, payload=b"payload")


def echo(message: Message, context: object) -> Message:
    return Message(message.content, reply_to=message)


def fails(code: int) -> Any:
    return lambda message, _: Message(Error(code=code, reason="patient 4711"), reply_to=message)


def ask(grid: LocalGrid, **options: Any) -> list[tuple[str, Any]]:
    """Ask every node once; return what each answered, in the order of asking."""
    post = GridPost(grid, **options)
    ids = [post.send(node, "train", SEALED, post.share(SEALED.payload)) for node in post.nodes()]
    found: dict[str, Any] = {}
    while len(found) < len(ids):
        waiting = [name for name in ids if name not in found]
        found |= dict(post.fetch(waiting, most=len(SEALED.payload)))
    return [(name, found[name]) for name in ids]


@pytest.mark.parametrize("code", [1, 3, 4, 5, 7, 8])
def test_what_flower_makes_is_no_answer(code: int) -> None:
    with LocalGrid([fails(code)]) as grid:
        ((_, answer),) = ask(grid)
    assert isinstance(answer, Lost)
    assert answer.gone == (code == 5)


@pytest.mark.parametrize("code", [0, 2, 6, 99])
def test_every_other_error_is_the_sites_answer(code: int) -> None:
    with LocalGrid([fails(code)]) as grid:
        assert ask(grid)[0][1] == Malformed(code="error")


@pytest.mark.parametrize("at_once", [None, 1, 2])
def test_signed_bytes_come_as_they_went(at_once: int | None) -> None:
    other = Sealed(header=b"[]", signature=b"\x02" * 64, payload=b"")
    apps = [echo, lambda message, _: Message(pack(other), reply_to=message), fails(2)]
    with LocalGrid(apps) as grid:
        answers = [answer for _, answer in ask(grid, at_once=at_once)]
    assert answers == [SEALED, other, Malformed(code="error")]


def test_another_form_is_malformed() -> None:
    with LocalGrid([lambda message, _: Message(RecordDict(), reply_to=message)]) as grid:
        assert ask(grid)[0][1] == Malformed(code="schema")


class Recording(LocalGrid):
    """A Grid that counts how many replies it was asked for at once."""

    asked: list[int]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        wanted = list(message_ids)
        self.asked.append(len(wanted))
        return super().pull_messages(wanted)


def test_few_replies_at_once() -> None:
    with Recording([echo] * 5) as grid:
        grid.asked = []
        assert [answer for _, answer in ask(grid, at_once=2)] == [SEALED] * 5
        assert max(grid.asked) == 2


class Failing(LocalGrid):
    """A Grid whose connection fails, or that takes no message in."""

    error: Exception | None = None

    def get_node_ids(self) -> Iterable[int]:
        if self.error:
            raise self.error
        return super().get_node_ids()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        if self.error:
            raise self.error
        return []

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        if self.error:
            raise self.error
        return super().pull_messages(message_ids)


@pytest.mark.parametrize("error", [ConnectError("refused"), ConnectionResetError(), TimeoutError()])
def test_a_failing_connection_is_a_post_that_is_down(error: Exception) -> None:
    with Failing([echo]) as grid:
        grid.error = error
        post = GridPost(grid)
        with pytest.raises(PostDown):
            post.nodes()
        with pytest.raises(PostDown):
            post.send(2, "train", SEALED)
        with pytest.raises(PostDown):
            list(post.fetch(["m"], most=7))


def test_a_grid_that_takes_nothing_in_is_down_too() -> None:
    with Failing([echo]) as grid, pytest.raises(PostDown):
        GridPost(grid).send(2, "train", SEALED)


def test_a_refused_call_is_no_passing_failure() -> None:
    request = Request("POST", "https://localhost")
    with Failing([echo]) as grid, pytest.raises(HTTPStatusError):
        grid.error = HTTPStatusError("401", request=request, response=Response(401))
        GridPost(grid).nodes()


class Lying(LocalGrid):
    """A Grid whose replies claim to come from the SuperLink itself."""

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        for reply in super().pull_messages(message_ids):
            reply.metadata.__dict__["_src_node_id"] = 1
            stamp(reply, "m-x", reply_to=reply.metadata.reply_to_message_id)
            yield reply


def test_the_source_of_a_reply_is_not_looked_at() -> None:
    with Lying([echo, fails(5)]) as grid:
        assert [answer for _, answer in ask(grid)] == [SEALED, Lost(reason="gone")]


# --- how much of a reply is taken in --------------------------------------------------------

MIB = 1 << 20


def grown(work: Callable[[], Any]) -> tuple[Any, int]:
    """What some work returns, and by how many bytes Python's memory grew at its peak."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        found = work()
        return found, tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


def test_a_reply_of_64_megabytes_is_not_copied() -> None:
    """Flower has it whole by then: here the site is in this process."""
    large = pack(Sealed(header=b"{}", signature=b"\1" * 64, payload=bytes(64 * MIB)))
    with LocalGrid([lambda message, _: Message(large, reply_to=message)], wait_s=5.0) as grid:
        post = GridPost(grid)
        name = post.send(next(iter(post.nodes())), "train", SEALED)
        found, size = grown(lambda: list(post.fetch([name], most=1000)))
    assert found == [(name, Malformed(code="shape"))]
    assert size < MIB


def test_a_long_header_is_malformed() -> None:
    large = pack(Sealed(header=bytes(MIB), signature=b"", payload=b""))
    with LocalGrid([lambda message, _: Message(large, reply_to=message)]) as grid:
        assert ask(grid)[0][1] == Malformed(code="header")


@pytest.mark.parametrize(
    ("mark", "code"), [("collegium-too-large", "shape"), ("collegium-unreadable", "schema")]
)
def test_what_was_given_up_is_the_sites_answer(mark: str, code: str) -> None:
    """The Grid puts such an error in the reply's place; a site may write it itself."""
    error = Error(code=3, reason=f"Failed to pull object: {mark}")
    with LocalGrid([lambda message, _: Message(error, reply_to=message)]) as grid:
        assert ask(grid)[0][1] == Malformed(code=code)


class Objects:
    """A reply's objects, as a SuperLink hands them out one by one."""

    def __init__(self, content: RecordDict) -> None:
        with LocalGrid([echo]):  # messages are made in a runtime
            self.message = Message(content, dst_node_id=2, message_type="train")
        nested = get_all_nested_objects(self.message)
        root = self.message.object_id
        self.contents = {name: item.deflate() for name, item in nested.items()}
        self.ids = [*(name for name in self.contents if name != root), root]
        self.pulled = 0

    def fetch(self, name: str) -> bytes:
        content = self.contents[name]
        self.pulled += len(content)
        return bytes(bytearray(content))  # a copy, as from the network

    def read(self, most: int) -> Any:
        with at_most(most):
            return http_grid.inflate_object_from_contents(self.ids[-1], pull(self.ids, self.fetch))


@pytest.fixture
def promptly(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Grid's own functions are put back after the test."""
    for name in ("pull_objects", "inflate_object_from_contents"):
        monkeypatch.setattr(http_grid, name, getattr(http_grid, name))
    fetch_promptly()


@pytest.mark.usefixtures("promptly")
@pytest.mark.parametrize("size", [0, 1000, 3 * MIB, 45 * MIB])
def test_an_honest_reply_is_read_whole(size: int) -> None:
    objects = Objects(pack(Sealed(header=b"{}", signature=b"s", payload=bytes(size))))
    message = objects.read(size)
    assert len(message.content.array_records["vector"]["payload"].data) == size + 128
    assert len(objects.ids) < 10


@pytest.mark.usefixtures("promptly")
def test_a_large_reply_is_given_up_while_it_is_pulled() -> None:
    """64 megabytes in many objects against a model of a kilobyte: few of them are taken in."""
    records = {f"r{n}": ConfigRecord({"x": bytes([n]) * MIB}) for n in range(60)}
    objects = Objects(RecordDict(records))
    assert sum(len(content) for content in objects.contents.values()) > 60 * MIB

    def read() -> None:
        with pytest.raises(ObjectPullError, match="collegium-too-large"):
            objects.read(1000)

    _, size = grown(read)
    assert objects.pulled < 5 * MIB
    assert size < 5 * MIB


@pytest.mark.usefixtures("promptly")
def test_a_reply_of_many_objects_is_not_pulled_at_all() -> None:
    records = {f"r{n}": ConfigRecord({"x": n}) for n in range(500)}
    objects = Objects(RecordDict(records))
    with pytest.raises(ObjectPullError, match="collegium-too-large"):
        objects.read(1000)
    assert objects.pulled == 0


@pytest.mark.usefixtures("promptly")
@pytest.mark.parametrize("which", ["first", "root", "missing", "no message"])
def test_a_reply_that_flower_cannot_read_does_not_end_the_run(which: str) -> None:
    objects = Objects(pack(SEALED))
    if which == "first":
        objects.contents[objects.ids[0]] = b"rubbish"
    elif which == "root":
        objects.contents[objects.ids[-1]] = b"Message 4\0rub"
    elif which == "missing":
        del objects.ids[0]
    else:
        del objects.ids[-1]
    with pytest.raises(ObjectPullError, match="collegium-unreadable"):
        objects.read(1000)


class Link(BaseHTTPRequestHandler):
    """A SuperLink that hands out one object of 64 megabytes, whatever it is asked for."""

    written = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = PullObjectResponse(
            object_found=True, object_available=True, object_content=bytes(64 * MIB)
        ).SerializeToString()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        with suppress(ConnectionError):
            for start in range(0, len(body), MIB):
                self.wfile.write(body[start : start + MIB])
                Link.written += MIB

    def log_message(self, format: str, *args: Any) -> None:
        return


@pytest.mark.usefixtures("promptly")
@pytest.mark.parametrize(("most", "fits"), [(1000, False), (40 * MIB, True)])
def test_one_large_object_is_refused_by_its_announced_size(most: int, fits: bool) -> None:
    Link.written = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Link) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        grid = http_grid.HttpGrid(f"127.0.0.1:{server.server_port}", True, token="t")
        GridPost(grid)
        GridPost(grid)  # a second one adds nothing
        fetch = make_pull_object_fn_protobuf(grid._runtime_client.PullObject, grid.node, 1)
        with pytest.raises(ObjectPullError) as caught, at_most(most):
            pull(["a" * 64], fetch)
        assert len(grid._runtime_client._client.event_hooks["response"]) == 1
        grid.close()
        server.shutdown()
    assert fault_of(str(caught.value)) == ("schema" if fits else "shape")
    assert (Link.written >= 64 * MIB) == fits  # else the connection was shut while it wrote

"""The post over a Grid: a site's words and Flower's own failures, by question, never by source."""

from collections.abc import Iterable
from typing import Any

import pytest
from flwr.app import Error, Message, RecordDict
from httpx import ConnectError, HTTPStatusError, Request, Response

from collegium.core.messages import Sealed
from collegium.server._flwr import pack
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
        found |= dict(post.fetch([name for name in ids if name not in found]))
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
            list(post.fetch(["m"]))


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

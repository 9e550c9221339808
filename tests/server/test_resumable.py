"""What may be gone when it is tried again, and what is a bug or a refusal."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from collegium.core.errors import Interrupted, Refused
from collegium.server._flwr_link import Control
from collegium.server.resumable import resumable


def control(answer: int | Exception) -> Control:
    """A control client whose SuperLink gives one answer."""
    made = cast(Any, Control.__new__(Control))

    def ask(_: object) -> None:
        if isinstance(answer, Exception):
            raise answer
        request = httpx.Request("POST", "https://superlink/v1/control/list-runs")
        httpx.Response(answer, request=request).raise_for_status()

    made._client = type("Client", (), {"ListRuns": staticmethod(ask)})
    return cast(Control, made)


@pytest.mark.parametrize("answer", [401, 500, 502, 503, 507, httpx.ReadTimeout("late")])
def test_a_superlink_that_fails_is_tried_again(answer: int | Exception) -> None:
    with pytest.raises(Interrupted, match="cannot be reached"):
        control(answer).runs()


@pytest.mark.parametrize("answer", [400, 403, 404, 412])
def test_a_superlink_that_says_no_is_not(answer: int) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        control(answer).runs()


def raises(error: Exception) -> Callable[[], None]:
    def call() -> None:
        raise error

    return call


def test_only_what_may_be_gone_becomes_resumable(tmp_path: Path) -> None:
    for error, kind in (
        (OSError(5, "Input/output error"), Interrupted),
        (Refused("no"), Refused),
        (KeyError("a bug"), KeyError),
    ):
        with pytest.raises(kind) as found, resumable(tmp_path):
            raises(error)()
        assert kind is not Interrupted or "Input/output error" in str(found.value)

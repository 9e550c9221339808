"""The relay: bytes both ways, ends told one by one, bounded, and only to this machine itself."""

import asyncio
import contextlib
import hashlib
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from collegium.client import relay as relay_file
from collegium.client.relay import MOST_CONNECTIONS, Relay
from collegium.core.errors import Refused, UsageError

HUNDRED_MB = 100_000_000
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path leaves room for a socket's name."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="cg-") as folder:
        yield Path(folder)


def through(path: Path, handler: Handler, act: Callable[[], Awaitable[None]]) -> None:
    """Run ``act`` while a relay leads from ``path`` to ``handler`` on a loopback port."""

    async def all_of_it() -> None:
        handled: list[asyncio.Task[None] | None] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            handled.append(asyncio.current_task())
            try:
                await handler(reader, writer)
            except ConnectionError:
                pass  # the relay was told to stop
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(Relay(path, "127.0.0.1", port).run(stop, ready))
        await ready.wait()
        try:
            async with asyncio.timeout(60):
                await act()
        finally:
            stop.set()
            await task
            server.close()
            await asyncio.gather(*(each for each in handled if each), return_exceptions=True)

    asyncio.run(all_of_it())


def test_100_mb_both_ways_at_once(short: Path) -> None:
    block = os.urandom(1_000_000)
    sent = hashlib.sha256(block * 100).hexdigest()
    found: list[str] = []

    async def read_all(reader: asyncio.StreamReader) -> None:
        digest, size = hashlib.sha256(), 0
        while data := await reader.read(1 << 20):
            digest.update(data)
            size += len(data)
        assert size == HUNDRED_MB
        found.append(digest.hexdigest())

    async def write_all(writer: asyncio.StreamWriter) -> None:
        for _ in range(100):
            writer.write(block)
            await writer.drain()
        writer.write_eof()

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.gather(read_all(reader), write_all(writer))
        writer.close()

    async def near() -> None:
        reader, writer = await asyncio.open_unix_connection(str(short / "r.sock"))
        await asyncio.gather(read_all(reader), write_all(writer))
        writer.close()
        await writer.wait_closed()

    through(short / "r.sock", far, near)
    assert found == [sent, sent]


def test_an_end_is_passed_on_and_the_answer_still_comes_back(short: Path) -> None:
    """Half-close: the question is over, the answer is not."""

    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read()  # returns at the end alone
        writer.write(question[::-1])
        await writer.drain()
        writer.close()

    async def near() -> None:
        reader, writer = await asyncio.open_unix_connection(str(short / "r.sock"))
        writer.write(b"abc")
        writer.write_eof()
        assert await reader.read() == b"cba"
        writer.close()
        await writer.wait_closed()

    through(short / "r.sock", far, near)


def test_nobody_behind_it_is_a_closed_connection(short: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    async def act() -> None:
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(Relay(short / "r.sock", "127.0.0.1", port).run(stop, ready))
        await ready.wait()
        reader, writer = await asyncio.open_unix_connection(str(short / "r.sock"))
        with contextlib.suppress(ConnectionError):  # a reset is as good as an end
            assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        stop.set()
        await task

    asyncio.run(act())


def test_one_connection_too_many_is_closed_and_the_others_live(short: Path) -> None:
    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(100):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def near() -> None:
        held = []
        for _ in range(MOST_CONNECTIONS):
            pair = await asyncio.open_unix_connection(str(short / "r.sock"))
            pair[1].write(b"x")
            assert await pair[0].read(1) == b"x"
            held.append(pair)
        reader, writer = await asyncio.open_unix_connection(str(short / "r.sock"))
        writer.write(b"x")
        with contextlib.suppress(ConnectionError):
            assert await reader.read(1) == b""
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        held[0][1].write(b"y")
        assert await held[0][0].read(1) == b"y"
        for _, other in held:
            other.close()
            await other.wait_closed()

    through(short / "r.sock", far, near)


def test_the_socket_is_for_owner_and_group(short: Path) -> None:
    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def near() -> None:
        assert stat.S_IMODE((short / "r.sock").stat().st_mode) == 0o660

    through(short / "r.sock", far, near)
    assert not (short / "r.sock").exists()


@pytest.mark.parametrize("host", ["192.0.2.1", "0.0.0.0", "::"])
def test_it_leads_to_this_machine_alone(short: Path, host: str) -> None:
    with pytest.raises(UsageError):
        Relay(short / "r.sock", host, 80)


def test_a_path_too_long_is_64(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="107"):
        Relay(tmp_path / ("x" * 108), "127.0.0.1", 80)


def test_a_second_relay_does_not_take_the_socket(short: Path) -> None:
    async def far(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def near() -> None:
        with pytest.raises(Refused):
            await Relay(short / "r.sock", "127.0.0.1", 80).run(asyncio.Event())
        assert (short / "r.sock").exists()

    through(short / "r.sock", far, near)


def test_as_a_process_it_ends_with_0_and_replaces_a_dead_ones_socket(short: Path) -> None:
    path = short / "r.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", relay_file.__name__, str(path), f"127.0.0.1:{port}"]
    )
    try:
        answered = threading.Event()

        def serve() -> None:
            peer, _ = server.accept()
            peer.sendall(b"hello")
            peer.close()
            answered.set()

        threading.Thread(target=serve, daemon=True).start()
        assert _greeting(path) == b"hello"
        assert answered.wait(10)
    finally:
        process.terminate()
        code = process.wait(20)
        server.close()
    assert code == 0 and not path.exists()


def _greeting(path: Path) -> bytes:
    """What the far end says, once the relay listens."""
    for _ in range(400):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                threading.Event().wait(0.05)
                continue
            return probe.recv(5)
    raise AssertionError("the relay never listened")

"""``python -m collegium.client.relay SOCKET HOST:PORT``: a Unix socket in front of a loopback port.

The SuperNode's user runs it, so that the process beside the records needs no network at all.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import CollegiumError, UsageError
from .sockets import check_socket_path, remove_stale_socket

logger = logging.getLogger(__name__)

MOST_CONNECTIONS = 64
_CHUNK = 256 * 1024
_CONNECT_S = 5.0

_Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Relay:
    """Passes bytes both ways; at most ``MOST_CONNECTIONS`` at once, and few bytes of each."""

    def __init__(self, path: Path, host: str, port: int, *, mode: int = 0o660) -> None:
        """Raises ``UsageError`` for a path that no socket can have or a host beyond loopback."""
        check_socket_path(path)
        if not ipaddress.ip_address(host).is_loopback:
            raise UsageError(
                f"{host} is not a loopback address",
                why="the relay leads to this machine's own SuperNode and nowhere else",
                cure="use 127.0.0.1:PORT",
            )
        self._path, self._host, self._port, self._mode = path, host, port, mode
        self._open: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Relay until ``stop`` is set; raises ``Refused`` when another relay listens there."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        remove_stale_socket(self._path)
        before = os.umask(0o777 & ~self._mode)
        try:
            server = await asyncio.start_unix_server(self._relay, str(self._path), limit=_CHUNK)
        finally:
            os.umask(before)
        if ready is not None:
            ready.set()
        try:
            await stop.wait()
        finally:
            server.close()
            self._path.unlink(missing_ok=True)
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._open) >= MOST_CONNECTIONS:
            logger.warning("more than %d connections; one was closed", MOST_CONNECTIONS)
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await self._joined((reader, writer))
        except asyncio.CancelledError:
            pass  # the relay stops; asyncio would log a cancelled handler as an error
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _joined(self, near: _Stream) -> None:
        try:
            async with asyncio.timeout(_CONNECT_S):
                far = await asyncio.open_connection(self._host, self._port, limit=_CHUNK)
        except (OSError, TimeoutError):
            return  # the SuperNode is not there; the site asks again
        await _both_ways(near, far)


async def _both_ways(near: _Stream, far: _Stream) -> None:
    """Copy until both directions have ended; an error in one ends both."""
    writers = (near[1], far[1])
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(near[0], far[1]))
            group.create_task(_pump(far[0], near[1]))
        for writer in writers:
            writer.close()  # what is still in its buffer goes out first
        for writer in writers:
            await writer.wait_closed()
    except* OSError:
        pass  # a reset is told on as a reset
    finally:
        for writer in writers:
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy to the end of one direction and say there that it ended; the other goes on."""
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()


async def _main(path: Path, host: str, port: int) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await Relay(path, host, port).run(stop)


def main(words: Sequence[str] | None = None) -> int:
    """Relay until a signal comes; return the exit code."""
    parser = argparse.ArgumentParser(prog="collegium.client.relay", description=__doc__)
    parser.add_argument("socket", type=Path, metavar="SOCKET")
    parser.add_argument("address", metavar="HOST:PORT")
    args = parser.parse_args(words)
    host, _, port = args.address.rpartition(":")
    try:
        if not port.isdigit():
            raise UsageError(f"'{args.address}' is not HOST:PORT")
        asyncio.run(_main(args.socket, host, int(port)))
    except CollegiumError as error:
        sys.stderr.write(f"{error.message()}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

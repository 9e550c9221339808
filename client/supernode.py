"""``python -m collegium.client.supernode``: Flower's SuperNode with safe flags and our pace.

It has the network and no records. Isolation is always ``process``: it starts nothing itself and
waits for the site process to take its tasks from a loopback port.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

SAFE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
}
"""What Flower's processes are told: no telemetry, no update check, no installation at run time."""

HEARTBEAT_S = 15
"""How often a SuperNode tells that it lives; Flower allows 10 to 1800 s, its own default is 30."""
LEASE_S = 2.0 * HEARTBEAT_S
"""For so long after its last sign a killed SuperNode's place stays taken (Flower's patience)."""


def command(
    *,
    superlink: str,
    ca: Path,
    key: Path,
    port: int,
    poll_s: float,
    home: Path,
    secret: Path | None = None,
) -> list[str]:
    """Return the command that starts a SuperNode; ``home`` is its own folder of state."""
    words = [sys.executable, "-m", "collegium.client.supernode"]
    words += ["--superlink", superlink, "--root-certificates", str(ca), "--key", str(key)]
    words += ["--port", str(port), "--poll", f"{poll_s:g}", "--home", str(home)]
    return [*words, *(["--secret", str(secret)] if secret else [])]


def main(words: Sequence[str] | None = None) -> None:
    """Become a SuperNode; returns when it ends."""
    args = _parser().parse_args(words)
    os.environ |= SAFE | {"FLWR_HOME": str(args.home)}
    flags = ["--superlink", args.superlink, "--root-certificates", str(args.root_certificates)]
    flags += ["--auth-supernode-private-key", str(args.key), "--isolation", "process"]
    flags += ["--host", "127.0.0.1", "--port", str(args.port)]
    flags += ["--superexec-auth-secret-file", str(args.secret)] if args.secret else []
    sys.argv = ["flower-supernode", *flags]
    from ._flwr_supernode import start  # after the environment is set: Flower reads it on import

    start(poll_s=args.poll)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="collegium.client.supernode", description=__doc__)
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT")
    parser.add_argument("--root-certificates", required=True, type=Path)
    parser.add_argument("--key", required=True, type=Path)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--poll", type=float, default=1.0)
    parser.add_argument("--home", required=True, type=Path)
    parser.add_argument("--secret", type=Path)
    return parser


if __name__ == "__main__":
    main()

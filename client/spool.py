"""Signed replies kept on disk: a repeated request returns the same bytes, never fresh noise."""

from __future__ import annotations

from pathlib import Path

from ..core.digest import sha256_hex
from ..core.files import write_atomic
from ..core.messages import Sealed


class Spool:
    """One file per (job, round, attempt), written atomically and synced before it is sent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, job: str, round: int, attempt: int) -> Sealed | None:
        """Return the stored reply, or None."""
        path = self._path(job, round, attempt)
        if not path.is_file():
            return None
        raw = path.read_bytes()
        header_end = 8 + int.from_bytes(raw[:4], "big")
        signature_end = header_end + int.from_bytes(raw[4:8], "big")
        return Sealed(
            header=raw[8:header_end],
            signature=raw[header_end:signature_end],
            payload=raw[signature_end:],
        )

    def put(self, job: str, round: int, attempt: int, reply: Sealed) -> None:
        """Store the reply durably; after this it counts as sent."""
        lengths = len(reply.header).to_bytes(4, "big") + len(reply.signature).to_bytes(4, "big")
        path = self._path(job, round, attempt)
        write_atomic(path, lengths, reply.header, reply.signature, reply.payload)

    def _path(self, job: str, round: int, attempt: int) -> Path:
        return self._folder / f"{job}-{round:06d}-{attempt}.reply"


def digest_of(reply: Sealed) -> str:
    """Return the digest by which the ledger's commits know a reply."""
    return sha256_hex(reply.header, reply.payload)

"""The model's checked bytes between hashing and loading: no process can change them any more."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from .errors import DeviceError
from .files import PART_BYTES, read_limited
from .session import open_session


@dataclass(slots=True)
class HeldModel:
    """A model whose SHA-256 is ``digest``: these very bytes are loaded, whatever the file becomes.

    On Linux they lie in a nameless, sealed file of the kernel's (``descriptor``), which the
    runtime parses as it reads; elsewhere in ``content``, of which the runtime makes a copy (for a
    resnet18 in int8 the peak of the process is 23 MB higher then).
    """

    digest: str
    descriptor: int = -1
    content: bytes = b""

    def open(self) -> ort.InferenceSession:
        """Return a session on the bytes, once; they are let go, whatever the runtime raises."""
        try:
            if self.descriptor < 0:
                return open_session(self.content)
            return open_session(_descriptor_path(self.descriptor))
        finally:
            self.drop()

    def drop(self) -> None:
        """Let the bytes go."""
        self.content = b""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def hold_model(path: Path, most: int) -> HeldModel:
    """Read a model once, at most ``most`` bytes; raises ``DeviceError``."""
    descriptor = _sealed_copy(path, most)
    if descriptor >= 0:
        return HeldModel(digest=_digest_of(descriptor), descriptor=descriptor)
    content = read_limited(path, most)
    return HeldModel(digest=hashlib.sha256(content).hexdigest(), content=content)


def _descriptor_path(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")


def _sealed_copy(path: Path, most: int) -> int:
    """Return the descriptor of a copy that nobody can change, -1 where the system has none.

    Other processes of the same user find the copy under /proc while it is written; the seal
    ends that, and only then is it hashed.
    """
    if sys.platform != "linux" or not hasattr(os, "memfd_create"):
        return -1
    import fcntl

    try:
        descriptor = os.memfd_create("model.onnx", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError:  # an old kernel, or a sandbox
        return -1
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
    try:
        if _descriptor_path(descriptor).exists():  # there is a /proc
            _copy_model(path, most, descriptor)
            with contextlib.suppress(OSError):  # a sandbox again, or somebody who holds it
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
                return descriptor
    except DeviceError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return -1


def _copy_model(path: Path, most: int, descriptor: int) -> None:
    size = 0
    try:
        with path.open("rb") as stream, os.fdopen(os.dup(descriptor), "wb") as copy:
            while part := stream.read(PART_BYTES):
                size += len(part)
                if size > most:
                    raise DeviceError("TOO LARGE", f"{path.name} has more than {most} bytes")
                copy.write(part)
    except OSError as error:
        raise DeviceError("MISSING", f"{path.name} cannot be read: {error.strerror}", 66) from None


def _digest_of(descriptor: int) -> str:
    found, place = hashlib.sha256(), 0
    while part := os.pread(descriptor, PART_BYTES, place):
        found.update(part)
        place += len(part)
    return found.hexdigest()

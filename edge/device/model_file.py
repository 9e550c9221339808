"""The model's checked bytes between hashing and loading: out of everybody's reach, held once."""

from __future__ import annotations

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

    On Linux they lie in a nameless file of the kernel's (``descriptor``), which the runtime
    parses as it reads; elsewhere in ``content``, of which the runtime makes a copy (for a
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
    if sys.platform == "linux" and hasattr(os, "memfd_create"):
        try:
            descriptor = os.memfd_create("model.onnx")
        except OSError:  # an old kernel, or a sandbox
            descriptor = -1
        if descriptor >= 0 and _descriptor_path(descriptor).exists():
            return _copied_model(path, most, descriptor)
        if descriptor >= 0:  # no /proc
            os.close(descriptor)
    content = read_limited(path, most)
    return HeldModel(digest=hashlib.sha256(content).hexdigest(), content=content)


def _descriptor_path(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}")


def _copied_model(path: Path, most: int, descriptor: int) -> HeldModel:
    """Hash the parts of a file that are copied: what is hashed is what is held."""
    found, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as stream, os.fdopen(os.dup(descriptor), "wb") as copy:
            while part := stream.read(PART_BYTES):
                size += len(part)
                if size > most:
                    raise DeviceError("TOO LARGE", f"{path.name} has more than {most} bytes")
                found.update(part)
                copy.write(part)
    except DeviceError:
        os.close(descriptor)
        raise
    except OSError as error:
        os.close(descriptor)
        raise DeviceError("MISSING", f"{path.name} cannot be read: {error.strerror}", 66) from None
    return HeldModel(digest=found.hexdigest(), descriptor=descriptor)

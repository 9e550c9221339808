"""Signed bytes as named records, and the only array form a peer may send.

A message is one record of header and signature and one flat uint8 array, as ``.npy`` bytes
read by hand: ``numpy.load`` is never called on a peer's bytes, whose header may claim any
shape or type. ``client`` and ``server`` turn these records into Flower's and back.
"""

from __future__ import annotations

from collections.abc import Mapping

from .messages import MAX_HEADER_BYTES, BadMessage, Sealed

SEAL, VECTOR, PAYLOAD = "seal", "vector", "payload"

_MAGIC = b"\x93NUMPY\x01\x00"


def to_npy(data: bytes) -> bytes:
    """Return ``data`` as a version 1.0 ``.npy`` file of shape (len(data),), dtype uint8."""
    return _npy_header(len(data)) + data


def npy_size(size: int) -> int:
    """Return how many bytes ``to_npy`` makes of ``size`` bytes; it grows with them."""
    return len(_npy_header(size)) + size


def from_npy(raw: bytes) -> bytes | None:
    """Return the array's bytes, or None when ``raw`` is anything but ``to_npy`` of them.

    They are copied once, so that the message that brought them can be let go of.
    """
    start = len(_MAGIC) + 2
    end = start + int.from_bytes(raw[len(_MAGIC) : start], "little")
    if len(raw) < end or raw[:end] != _npy_header(len(raw) - end):
        return None
    return bytes(memoryview(raw)[end:])


def _npy_header(size: int) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}".encode()
    line = text + b" " * (-(len(_MAGIC) + 2 + len(text) + 1) % 64) + b"\n"
    return _MAGIC + len(line).to_bytes(2, "little") + line


def from_records(
    configs: Mapping[str, Mapping[str, object]],
    arrays: Mapping[str, Mapping[str, bytes]],
    most: int | None = None,
) -> Sealed:
    """Return the signed bytes of a message; raises ``BadMessage`` for any other form.

    ``most`` bounds its payload in bytes: a longer one has code ``shape``, before it is copied.
    """
    if set(configs) != {SEAL} or set(arrays) != {VECTOR} or set(arrays[VECTOR]) != {PAYLOAD}:
        raise BadMessage("schema")
    if set(configs[SEAL]) != {"header", "signature"}:
        raise BadMessage("schema")
    header, signature = configs[SEAL]["header"], configs[SEAL]["signature"]
    if not isinstance(header, bytes) or not isinstance(signature, bytes):
        raise BadMessage("schema")
    if len(header) > MAX_HEADER_BYTES:
        raise BadMessage("header")
    raw = arrays[VECTOR][PAYLOAD]
    if most is not None and len(raw) > npy_size(most):
        raise BadMessage("shape")
    payload = from_npy(raw)
    if payload is None:
        raise BadMessage("payload")
    return Sealed(header=header, signature=signature, payload=payload)

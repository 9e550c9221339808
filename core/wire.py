"""Signed bytes as named records, and the only array form a peer may send.

A message is one record of header and signature and one flat uint8 array, as ``.npy`` bytes
read by hand: ``numpy.load`` is never called on a peer's bytes, whose header may claim any
shape or type. ``client`` and ``server`` turn these records into Flower's and back.
"""

from __future__ import annotations

from collections.abc import Mapping

from .messages import BadMessage, Sealed

SEAL, VECTOR, PAYLOAD = "seal", "vector", "payload"

_MAGIC = b"\x93NUMPY\x01\x00"


def to_npy(data: bytes) -> bytes:
    """Return ``data`` as a version 1.0 ``.npy`` file of shape (len(data),), dtype uint8."""
    return _npy_header(len(data)) + data


def from_npy(raw: bytes) -> bytes | None:
    """Return the array's bytes, or None when ``raw`` is anything but ``to_npy`` of them."""
    start = len(_MAGIC) + 2
    end = start + int.from_bytes(raw[len(_MAGIC) : start], "little")
    if len(raw) < end or raw[:end] != _npy_header(len(raw) - end):
        return None
    return raw[end:]


def _npy_header(size: int) -> bytes:
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({size},), }}".encode()
    line = text + b" " * (-(len(_MAGIC) + 2 + len(text) + 1) % 64) + b"\n"
    return _MAGIC + len(line).to_bytes(2, "little") + line


def from_records(
    configs: Mapping[str, Mapping[str, object]], arrays: Mapping[str, Mapping[str, bytes]]
) -> Sealed:
    """Return the signed bytes of a message; raises ``BadMessage`` for any other form."""
    if set(configs) != {SEAL} or set(arrays) != {VECTOR} or set(arrays[VECTOR]) != {PAYLOAD}:
        raise BadMessage("schema")
    if set(configs[SEAL]) != {"header", "signature"}:
        raise BadMessage("schema")
    header, signature = configs[SEAL]["header"], configs[SEAL]["signature"]
    if not isinstance(header, bytes) or not isinstance(signature, bytes):
        raise BadMessage("schema")
    payload = from_npy(arrays[VECTOR][PAYLOAD])
    if payload is None:
        raise BadMessage("payload")
    return Sealed(header=header, signature=signature, payload=payload)

"""Signed bytes as named records, and the only array form a peer may send.

A message is one record of header and signature and one flat uint8 array, as ``.npy`` bytes
read by hand: ``numpy.load`` is never called on a peer's bytes, whose header may claim any
shape or type. ``client`` and ``server`` turn these records into Flower's and back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .messages import BadMessage, Sealed

SEAL, VECTOR, PAYLOAD = "seal", "vector", "payload"

_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '\|u1', 'fortran_order': False, 'shape': \((\d{1,12}),\), \} *\n"
)


def to_npy(data: bytes) -> bytes:
    """Return ``data`` as a version 1.0 ``.npy`` file of shape (len(data),), dtype uint8."""
    text = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({len(data)},), }}".encode()
    padding = -(len(_MAGIC) + 2 + len(text) + 1) % 64
    header = text + b" " * padding + b"\n"
    return _MAGIC + len(header).to_bytes(2, "little") + header + data


def from_npy(raw: bytes) -> bytes | None:
    """Return the array's bytes, or None when ``raw`` is anything but such a file, exactly."""
    start = len(_MAGIC) + 2
    if not raw.startswith(_MAGIC) or len(raw) < start:
        return None
    end = start + int.from_bytes(raw[len(_MAGIC) : start], "little")
    match = _HEADER.fullmatch(raw[start:end])
    if match is None or len(raw) - end != int(match[1]):
        return None
    return raw[end:]


def from_records(
    configs: Mapping[str, Mapping[str, object]], arrays: Mapping[str, Mapping[str, bytes]]
) -> Sealed:
    """Return the signed bytes of a message; raises ``BadMessage`` for any other form."""
    if set(configs) != {SEAL} or set(arrays) != {VECTOR} or set(arrays[VECTOR]) != {PAYLOAD}:
        raise BadMessage("schema")
    header, signature = configs[SEAL].get("header"), configs[SEAL].get("signature")
    if not isinstance(header, bytes) or not isinstance(signature, bytes):
        raise BadMessage("schema")
    payload = from_npy(arrays[VECTOR][PAYLOAD])
    if payload is None:
        raise BadMessage("payload")
    return Sealed(header=header, signature=signature, payload=payload)

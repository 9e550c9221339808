"""Arrays from the bytes of .npy and .npz files: no pickles, and no more memory than is allowed."""

from __future__ import annotations

import io
import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.lib import format as npy

from .names import MAX_INPUT_BYTES

NPY_MAGIC, ZIP_MAGIC = b"\x93NUMPY", b"PK\x03\x04"
MOST_MEMBERS = 64
HEADER_BYTES = 1 << 16


def npy_array(raw: bytes | memoryview) -> np.ndarray:
    """Return the array of a .npy file as a view of these very bytes; raises ``ValueError``."""
    stream = io.BytesIO(raw[:HEADER_BYTES])
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        if version not in ((1, 0), (2, 0)):
            raise ValueError("version")
        shape, fortran, dtype = read(stream)
        values = math.prod(shape)
        if dtype.hasobject or dtype.fields or values * dtype.itemsize != len(raw) - stream.tell():
            raise ValueError("objects, or another size")
        flat = np.frombuffer(raw, dtype, values, stream.tell())
        return flat.reshape(shape, order="F" if fortran else "C")
    except Exception:  # a damaged header can raise anything in its parser
        raise ValueError("it is no .npy file of plain numbers, or damaged") from None


def npz_arrays(raw: bytes, limit: int = MAX_INPUT_BYTES) -> dict[str, np.ndarray]:
    """Return the arrays of a .npz file, ``limit`` bytes in all; raises ``ValueError``."""
    import zipfile

    found: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = archive.infolist()
            # what a member says of its size bounds what is read of it
            if len(members) > MOST_MEMBERS or sum(each.file_size for each in members) > limit:
                raise ValueError("it is too large")
            for member in members:
                content = _stored(raw, member)
                if content is None:
                    with archive.open(member) as stream:
                        content = stream.read(member.file_size + 1)
                found[member.filename.removesuffix(".npy")] = npy_array(content)
    except (ValueError, MemoryError):
        raise
    except Exception:  # zipfile and zlib raise many kinds for damage
        raise ValueError("it is no .npz file, or damaged") from None
    return found


def _stored(raw: bytes, member: Any) -> memoryview | None:
    """Return a member that is not packed as a view of the file's bytes, None for a packed one."""
    if member.compress_type or member.compress_size != member.file_size:
        return None
    name, extra = struct.unpack_from("<HH", raw, member.header_offset + 26)
    start = member.header_offset + 30 + name + extra
    content = memoryview(raw)[start : start + member.file_size]
    if zlib.crc32(content) != member.CRC:
        raise ValueError("it is damaged")
    return content


def one_array(raw: bytes) -> np.ndarray:
    """Return the array of a .npy, or of a .npz its ``x`` or only one; raises ``ValueError``."""
    if raw.startswith(NPY_MAGIC):
        return npy_array(raw)
    arrays = npz_arrays(raw)
    if "x" in arrays:
        return arrays["x"]
    if len(arrays) != 1:
        raise ValueError("it has several arrays and none of them is called x")
    return next(iter(arrays.values()))

"""The coordinator's touch of Flower's records: signed bytes in and out of a RecordDict."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from ..core.messages import BadMessage, Sealed
from ..core.wire import PAYLOAD, SEAL, VECTOR, from_records, to_npy


def unpack(message: Message, most: int) -> Sealed:
    """Return the signed bytes of a Flower message; raises ``BadMessage`` for any other form.

    A payload of more than ``most`` bytes is refused before any of it is copied.
    """
    content = message.content
    if set(content) != {SEAL, VECTOR}:
        raise BadMessage("schema")  # records of any other kind too
    arrays = {
        name: {key: array.data for key, array in record.items()}
        for name, record in content.array_records.items()
    }
    return from_records(dict(content.config_records), arrays, most)


def array_of(payload: bytes) -> Array:
    """Return the one flat uint8 array that carries a payload; messages may share it."""
    return Array(dtype="uint8", shape=(len(payload),), stype="numpy.ndarray", data=to_npy(payload))


def pack(sealed: Sealed, array: Array | None = None) -> RecordDict:
    """Return a RecordDict of the signed bytes: header, signature, one flat uint8 array.

    ``array`` is ``array_of(sealed.payload)`` where the caller has it already: the base model
    of a round is in memory once, not once per site.
    """
    return RecordDict(
        {
            SEAL: ConfigRecord({"header": sealed.header, "signature": sealed.signature}),
            VECTOR: ArrayRecord({PAYLOAD: array or array_of(sealed.payload)}),
        }
    )

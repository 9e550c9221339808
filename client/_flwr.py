"""The site's touch of Flower's records: signed bytes in and out of a RecordDict."""

from __future__ import annotations

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict

from ..core.messages import BadMessage, Sealed
from ..core.wire import PAYLOAD, SEAL, VECTOR, from_records, to_npy


def unpack(message: Message) -> Sealed:
    """Return the signed bytes of a Flower message; raises ``BadMessage`` for any other form."""
    content = message.content
    if set(content) != {SEAL, VECTOR}:
        raise BadMessage("schema")  # records of any other kind too
    arrays = {
        name: {key: array.data for key, array in record.items()}
        for name, record in content.array_records.items()
    }
    return from_records(dict(content.config_records), arrays)


def pack(sealed: Sealed) -> RecordDict:
    """Return a RecordDict of the signed bytes: header, signature, one flat uint8 array."""
    payload = Array(
        dtype="uint8",
        shape=(len(sealed.payload),),
        stype="numpy.ndarray",
        data=to_npy(sealed.payload),
    )
    return RecordDict(
        {
            SEAL: ConfigRecord({"header": sealed.header, "signature": sealed.signature}),
            VECTOR: ArrayRecord({PAYLOAD: payload}),
        }
    )

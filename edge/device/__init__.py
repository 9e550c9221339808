"""What a device runs: verify a signed bundle and predict with it; nothing of ours, no torch."""

from .command import main
from .envelope import load_key
from .errors import DeviceError
from .inputs import read_input
from .names import PAYLOAD_TYPE, PLAIN_NAME, PREDICATE_TYPE, SIGNATURE_FILE, STATEMENT_TYPE
from .predicting import predict
from .session import infer, open_session
from .verify import Verified, verify_bundle

__all__ = [
    "PAYLOAD_TYPE",
    "PLAIN_NAME",
    "PREDICATE_TYPE",
    "SIGNATURE_FILE",
    "STATEMENT_TYPE",
    "DeviceError",
    "Verified",
    "infer",
    "load_key",
    "main",
    "open_session",
    "predict",
    "read_input",
    "verify_bundle",
]

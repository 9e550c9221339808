"""What a device runs: verify a signed bundle and predict with it; nothing of ours, no torch.

::

    from pathlib import Path
    from collegium.edge.device import read_key, verify_bundle

    verified = verify_bundle(Path("bundle"), [read_key("bundle.pub")], allow_simulated=True)
    labels, probabilities = verified.predict(records)

``device.py``, which ``edge.single_file`` joins from these modules, has the same names.
"""

from .command import main
from .envelope import fingerprint_of, load_key, read_key, signed_payload
from .errors import DeviceError
from .forms import Form, parse_form
from .home import Home, is_home, make_home
from .inputs import Batch, Reading, read_inputs
from .names import (
    INDEX_TYPE,
    PAYLOAD_TYPE,
    PLAIN_NAME,
    PREDICATE_TYPE,
    SIGNATURE_FILE,
    STATEMENT_TYPE,
    are_plain,
)
from .predicting import Verified, predict
from .session import infer, infer_in_parts, open_session, records_at_once
from .texts import tokenizer_of
from .verify import verify_bundle

__all__ = [
    "INDEX_TYPE",
    "PAYLOAD_TYPE",
    "PLAIN_NAME",
    "PREDICATE_TYPE",
    "SIGNATURE_FILE",
    "STATEMENT_TYPE",
    "Batch",
    "DeviceError",
    "Form",
    "Home",
    "Reading",
    "Verified",
    "are_plain",
    "fingerprint_of",
    "infer",
    "infer_in_parts",
    "is_home",
    "load_key",
    "main",
    "make_home",
    "open_session",
    "parse_form",
    "predict",
    "read_inputs",
    "read_key",
    "records_at_once",
    "signed_payload",
    "tokenizer_of",
    "verify_bundle",
]

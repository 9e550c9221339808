"""What a bundle's files and types are called, and how large they may be."""

from __future__ import annotations

import re
from collections.abc import Collection

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:collegium:bundle:v1"
INDEX_TYPE = "urn:collegium:index:v1"
SIGNATURE_FILE = "bundle.sig"
INDEX_FILE = "index.sig"
MODEL_FILE, FORM_FILE, LABELS_FILE = "model.onnx", "input.json", "labels.json"
SELFTEST_FILE, VOCABULARY_FILE = "selftest.npz", "vocab.txt"
MAX_ENVELOPE_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 30
MAX_INPUT_BYTES = 1 << 28
"""Of one file of records, and of the arrays in it."""
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
TERMS = frozenset(
    ("name", "version", "expires", "simulated", "minimum_runtime", "selftest_min_agreement")
)
SIMULATED = "simulated: no privacy guarantee"
WINDOWS_DEVICE = re.compile(r"(CON|PRN|AUX|NUL|COM\d|LPT\d)(\..*)?", re.IGNORECASE)


def are_plain(names: Collection[object]) -> bool:
    """Return whether each name is a file's on every system, and no two are one on some.

    No folder, no leading dot, no name that Windows keeps for a device or cuts (a last dot), no
    two that differ in their case alone.
    """
    texts = [name for name in names if isinstance(name, str)]
    return (
        len(texts) == len(names)
        and len({name.casefold() for name in texts}) == len(texts)
        and all(PLAIN_NAME.fullmatch(name) for name in texts)
        and not any(name.endswith(".") or WINDOWS_DEVICE.fullmatch(name) for name in texts)
    )

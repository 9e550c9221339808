"""What a bundle's files and types are called, and how large they may be."""

from __future__ import annotations

import re

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:collegium:bundle:v1"
SIGNATURE_FILE = "bundle.sig"
MAX_ENVELOPE_BYTES = 1 << 20
MAX_FILE_BYTES = 1 << 30
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
TERMS = frozenset(
    ("name", "version", "expires", "simulated", "minimum_runtime", "selftest_min_agreement")
)
SIMULATED = "simulated: no privacy guarantee"

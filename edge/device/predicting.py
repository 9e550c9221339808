"""A verified bundle answers: raw records to labels and probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort

from .errors import DeviceError
from .forms import Form
from .records import Given, as_records
from .session import infer_in_parts
from .texts import Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A bundle whose every byte was checked, and the session that was made of these bytes.

    ``digest`` (``sha256:...``) is that of the signed statement, ``subjects`` the SHA-256 of each
    file, ``predicate`` the signed terms; ``notes`` are for people. The files' own bytes are not
    kept: what they say is in ``form``, ``labels`` and ``tokenizer``.
    """

    digest: str
    predicate: dict[str, Any]
    subjects: dict[str, str]
    session: ort.InferenceSession
    form: Form
    labels: tuple[str, ...]
    tokenizer: Tokenizer | None
    at_once: int
    selftest_agreement: float
    notes: tuple[str, ...] = ()

    def predict(self, records: Given) -> tuple[list[str], np.ndarray]:
        """Return the label of each record, and the probabilities (n, classes).

        ``records`` is one raw record or (n, ...) of them as an array; or texts; or rows of a
        table as {column: value}. Raises ``DeviceError``.
        """
        x = as_records(records, self.form, self.tokenizer, "records")
        try:
            logits = infer_in_parts(self.session, x, self.at_once)
        except Exception as error:  # the runtime's exceptions have no common base of their own
            reason = f"the runtime cannot answer: {type(error).__name__}"
            raise DeviceError("MODEL", reason) from None
        if not np.isfinite(logits).all():
            raise DeviceError("MODEL", "an answer of the model is not a finite number")
        chances = softmax(logits)
        return [self.labels[index] for index in chances.argmax(axis=1)], chances


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities (n, classes) of logits (n, classes)."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def predict(verified: Verified, x: Given) -> tuple[list[str], np.ndarray]:
    """Return ``verified.predict(x)``: labels, and probabilities (n, classes)."""
    return verified.predict(x)

"""Raw records to labels and probabilities."""

from __future__ import annotations

import numpy as np

from .errors import DeviceError
from .session import infer
from .verify import Verified


def predict(verified: Verified, x: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return the label of each record and the probabilities (n, classes) of raw ``x``.

    ``x`` is one record or (n, ...) records, as the reader gives them. Raises ``DeviceError``.
    """
    given = verified.session.get_inputs()[0]
    shape = tuple(given.shape[1:])
    if x.shape == shape:
        x = x[None]
    numbers = x.dtype.kind in "fiub" and bool(np.isfinite(x).all())
    if x.shape[1:] != shape or len(x) == 0 or not numbers:
        raise DeviceError("BAD INPUT", f"records must be finite numbers of shape {shape}", 65)
    logits = infer(verified.session, x)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances = shifted / shifted.sum(axis=1, keepdims=True)
    return [verified.labels[index] for index in chances.argmax(axis=1)], chances

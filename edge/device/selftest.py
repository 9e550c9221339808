"""The bundle's own questions and answers: does this device answer as the publisher's did?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from .arrays import npz_arrays
from .errors import DeviceError
from .forms import Form
from .records import as_records
from .session import infer_in_parts
from .texts import Tokenizer

MOST_QUESTIONS = 4096
MOST_ASKED = 1 << 21
"""Raw values of the questions that are asked: large pictures are fewer, and a start is short."""
LEAST_ASKED = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """Raw records ``x`` (n, ...), the answers ``labels`` (n,), and the texts that x came from."""

    x: np.ndarray
    labels: np.ndarray
    texts: tuple[str, ...]


def selftest(
    session: ort.InferenceSession,
    raw: bytes,
    form: Form,
    tokenizer: Tokenizer | None,
    *,
    classes: int,
    at_once: int,
    least: float,
) -> float:
    """Return the share of questions in selftest.npz whose answer is the expected one.

    The first ones are asked: all, but of large records about ``MOST_ASKED`` values.

    Raises ``DeviceError`` SELFTEST when it is below ``least``, when an answer is not finite or
    not one of ``classes``, and when the tokenizer reads a text otherwise.
    """
    questions = _questions(raw, form)
    if tokenizer is not None and questions.texts:
        read = tokenizer(questions.texts)
        if not np.array_equal(read, questions.x):
            raise DeviceError("SELFTEST", "the texts give other tokens on this device")
    try:
        logits = infer_in_parts(session, questions.x, at_once)
    except Exception as error:  # whatever the runtime raises, the self-test did not pass
        raise DeviceError("SELFTEST", f"it did not run: {type(error).__name__}") from None
    if logits.shape != (len(questions.x), classes) or not np.isfinite(logits).all():
        reason = f"the answers are not finite numbers for {classes} classes"
        raise DeviceError("SELFTEST", reason)
    agreement = float((logits.argmax(axis=1) == questions.labels).mean())
    if not agreement >= least:
        raise DeviceError("SELFTEST", f"agreement {agreement:.3f} is below {least:.3f}")
    return agreement


def _questions(raw: bytes, form: Form) -> Questions:
    try:
        arrays = npz_arrays(raw)
        x, labels = arrays["x"], arrays["labels"]
        texts = tuple(str(text) for text in arrays.get("texts", np.empty(0, dtype="U1")).ravel())
        if not 0 < len(x) <= MOST_QUESTIONS or labels.shape != (len(x),):
            raise ValueError("as many answers as questions")
        asked = max(LEAST_ASKED, MOST_ASKED // int(np.prod(form.shape)))
        x = as_records(x[:asked], form, None, "x")
    except (ValueError, KeyError, TypeError, DeviceError):
        raise DeviceError("SELFTEST", "selftest.npz holds no questions of this form") from None
    return Questions(x=x, labels=labels[:asked], texts=texts[:asked])

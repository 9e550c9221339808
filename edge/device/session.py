"""ONNX bytes to answers."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort


def open_session(model: bytes) -> ort.InferenceSession:
    """Return a session on these ONNX bytes: CPU, one thread, the runtime's warnings hushed."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def infer(session: ort.InferenceSession, x: np.ndarray) -> np.ndarray:
    """Return the logits (n, classes) of raw records ``x`` (n, ...)."""
    name = session.get_inputs()[0].name
    return np.asarray(session.run(None, {name: x.astype(np.float32)})[0])

"""ONNX bytes to answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort

VALUES_AT_ONCE = 1 << 16
"""Raw values of the records that go through a model together: memory, not speed, is short."""
RECORDS_AT_ONCE = 256
TYPES = {
    "tensor(float)": np.float32,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def open_session(model: bytes | Path) -> ort.InferenceSession:
    """Return a session on ONNX bytes, or on a file: CPU, one thread, no warnings."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # memory is short on a device: weights are held once, and activations do not share one plan
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    session = ort.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        options,
        providers=["CPUExecutionProvider"],
    )
    if hasattr(session, "_model_bytes"):
        session._model_bytes = None  # kept for a second provider, which a device does not have
    return session


def infer(session: ort.InferenceSession, x: np.ndarray) -> np.ndarray:
    """Return the logits (n, classes) of raw records ``x`` (n, ...), all in one call.

    They are handed over in the type that the graph reads.
    """
    given = session.get_inputs()[0]
    records = x.astype(TYPES.get(given.type, np.float32), copy=False)
    return np.asarray(session.run(None, {given.name: np.ascontiguousarray(records)})[0])


def infer_in_parts(session: ort.InferenceSession, x: np.ndarray, at_once: int) -> np.ndarray:
    """Return the logits (n, classes) of ``x`` (n, ...), n at least 1, ``at_once`` at a time."""
    parts = [infer(session, x[start : start + at_once]) for start in range(0, len(x), at_once)]
    return np.concatenate(parts)


def records_at_once(shape: tuple[int, ...], recipe: str) -> int:
    """Return how many records of a raw ``shape`` go through a model together.

    One, where the recipe quantizes what flows through the model by its range at that moment:
    a record's answer would depend on the others beside it.
    """
    if "dynamic" in recipe:
        return 1
    return max(1, min(RECORDS_AT_ONCE, VALUES_AT_ONCE // max(1, int(np.prod(shape)))))

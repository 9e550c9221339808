"""The released model as files: the trainable vector with its layout, and the whole model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save
from torch import nn

from ..core.digest import canonical_bytes, file_digest
from ..core.errors import InvalidInput, MissingInput
from ..core.files import write_atomic
from ..core.layout import Layout, Vector

VECTOR_FILE = "model.safetensors"
WHOLE_FILE = "global.safetensors"


def write_vector_file(folder: Path, vector: Vector, layout: Layout) -> str:
    """Write model.safetensors (trainable vector and layout); return its digest."""
    tensors = {name: np.ascontiguousarray(part) for name, part in layout.split(vector).items()}
    metadata = {"layout": canonical_bytes(layout.to_dict()).decode()}
    write_atomic(folder / VECTOR_FILE, save(tensors, metadata=metadata))
    return file_digest(folder / VECTOR_FILE)


def read_vector_file(folder: Path) -> tuple[Vector, Layout]:
    """Return the vector (d,) and layout of model.safetensors.

    Raises ``MissingInput`` or ``InvalidInput``.
    """
    import json

    path = folder / VECTOR_FILE
    if not path.is_file():
        raise MissingInput(
            f"{folder} holds no {VECTOR_FILE}",
            why="the run has not released a model yet",
            cure="name a finished run, or --resume this one",
        )
    try:
        with safe_open(path, framework="numpy") as stream:
            layout = Layout.from_dict(json.loads(stream.metadata()["layout"]))
            parts = [stream.get_tensor(name).reshape(-1) for name in layout.names]
    except Exception as error:
        raise InvalidInput(
            f"{path} is not a released model",
            why=type(error).__name__,
            cure="restore it from a backup, or run again",
        ) from error
    return np.concatenate(parts).astype(np.float32, copy=False), layout


def write_whole_model(folder: Path, model: nn.Module) -> int:
    """Write global.safetensors (every tensor, float32); return its size in bytes."""
    tensors = {
        name: np.ascontiguousarray(value.detach().cpu().numpy())
        for name, value in sorted(model.state_dict().items())
    }
    raw = save(tensors)
    write_atomic(folder / WHOLE_FILE, raw)
    return len(raw)

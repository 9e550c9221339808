"""Released files: what is written is read back to the last bit, and damage is named."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load

from collegium.core.digest import file_digest
from collegium.core.errors import InvalidInput, MissingInput
from collegium.core.layout import Layout
from collegium.server.models_out import read_vector_file, write_vector_file, write_whole_model

LAYOUT = Layout.of({"head.weight": (2, 3), "head.bias": (2,)})
VECTOR = np.linspace(-1, 1, 8).astype(np.float32)


def test_vector_file(tmp_path: Path) -> None:
    digest = write_vector_file(tmp_path, VECTOR, LAYOUT)
    assert digest == file_digest(tmp_path / "model.safetensors")
    vector, layout = read_vector_file(tmp_path)
    assert vector.tobytes() == VECTOR.tobytes()
    assert layout == LAYOUT
    assert write_vector_file(tmp_path, VECTOR, LAYOUT) == digest  # the same bytes every time
    assert write_vector_file(tmp_path, VECTOR + 1, LAYOUT) != digest


def test_missing_and_damaged(tmp_path: Path) -> None:
    with pytest.raises(MissingInput):
        read_vector_file(tmp_path)
    for raw in (b"", b"rubbish", bytes(100)):
        (tmp_path / "model.safetensors").write_bytes(raw)
        with pytest.raises(InvalidInput):
            read_vector_file(tmp_path)


def test_whole_model_holds_every_tensor(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.GroupNorm(1, 2))
    size = write_whole_model(tmp_path, model)
    raw = (tmp_path / "global.safetensors").read_bytes()
    assert size == len(raw)
    tensors = load(raw)
    assert set(tensors) == set(model.state_dict())
    np.testing.assert_array_equal(tensors["0.weight"], model[0].weight.detach().numpy())

"""Weights are found by their bytes, and read as tensors alone."""

import io
import pickle
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save

from collegium.core.digest import sha256_hex
from collegium.core.errors import Refused
from collegium.models.states import decode, plain_state
from collegium.models.weights import find_weights


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLLEGIUM_WEIGHTS", str(tmp_path / "weights"))
    (tmp_path / "weights" / "deep").mkdir(parents=True)
    return tmp_path


def test_a_file_is_found_by_its_bytes_whatever_its_name(own_cache: Path) -> None:
    content = b"any bytes"
    path = own_cache / "weights" / "deep" / "odd name.pt"
    path.write_bytes(content)
    (own_cache / "weights" / "notes.md").write_bytes(content)
    assert find_weights(sha256_hex(content)) == path
    assert find_weights(sha256_hex(b"others")) is None


def test_a_single_file_and_torchs_cache_are_looked_at(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = own_cache / "cache" / "torch" / "hub" / "checkpoints" / "net.pth"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"cached")
    assert find_weights(sha256_hex(b"cached")) == kept
    single = own_cache / "alone.bin"
    single.write_bytes(b"single")
    monkeypatch.setenv("COLLEGIUM_WEIGHTS", str(single))
    assert find_weights(sha256_hex(b"single")) == single


def test_a_file_is_hashed_again_only_when_it_changes(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collegium.models import weights

    hashed: list[Path] = []
    real = weights.file_digest
    monkeypatch.setattr(weights, "file_digest", lambda path: (hashed.append(path), real(path))[1])
    path = own_cache / "weights" / "net.pt"
    path.write_bytes(b"one")
    for _ in range(3):
        assert find_weights(sha256_hex(b"one")) == path
    assert len(hashed) == 1
    path.write_bytes(b"other")
    assert find_weights(sha256_hex(b"one")) is None
    assert find_weights(sha256_hex(b"other")) == path
    assert len(hashed) == 2


def test_a_broken_memory_of_digests_does_no_harm(own_cache: Path) -> None:
    path = own_cache / "weights" / "net.pt"
    path.write_bytes(b"one")
    memory = own_cache / "cache" / "collegium" / "digests.json"
    memory.parent.mkdir(parents=True)
    memory.write_bytes(b"{broken")
    assert find_weights(sha256_hex(b"one")) == path


class Evil:
    def __reduce__(self) -> Any:
        return (Path("/nonexistent").touch, ())


@pytest.mark.parametrize(
    "content", [pickle.dumps({"a": Evil()}), b"", b"nonsense", struct.pack("<Q", 9**9) + b"{}"]
)
def test_what_holds_more_than_tensors_is_refused(content: bytes) -> None:
    with pytest.raises(Refused):
        decode(content, "net.pt")


def test_a_torch_file_that_would_run_something_is_refused() -> None:
    stream = io.BytesIO()
    torch.save({"a": Evil()}, stream)
    with pytest.raises(Refused, match="no file of weights"):
        decode(stream.getvalue(), "net.pt")


@given(content=st.binary(max_size=64))
def test_no_bytes_bring_the_reader_down(content: bytes) -> None:
    with suppress(Refused):
        plain_state(decode(content, "net"))


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_go_and_halves_become_floats(wrapper: str | None, prefix: str) -> None:
    tensors = {f"{prefix}a.weight": torch.ones(2).half(), f"{prefix}b": torch.arange(3)}
    held: Any = {wrapper: tensors, "epoch": 7} if wrapper else tensors
    stream = io.BytesIO()
    torch.save(held, stream)
    found = plain_state(decode(stream.getvalue(), "net.pt"))
    assert list(found) == ["a.weight", "b"]
    assert found["a.weight"].dtype == torch.float32 and found["b"].dtype == torch.int64


def test_safetensors_are_read() -> None:
    found = plain_state(decode(save({"a": torch.ones(2)}), "net.safetensors"))
    assert found["a"].tolist() == [1, 1]

"""Stored replies: the same bytes back, whole or not at all."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.client.spool import Spool
from collegium.core.messages import Sealed

REPLY = Sealed(header=b"header", signature=b"s" * 64, payload=b"payload")


@given(header=st.binary(max_size=50), signature=st.binary(max_size=70), payload=st.binary())
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, signature: bytes, payload: bytes
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    reply = Sealed(header=header, signature=signature, payload=payload)
    Spool(folder).put("job", 1, 1, reply)
    assert Spool(folder).get("job", 1, 1) == reply


def test_each_job_round_and_attempt_has_its_own(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    keys = [("a", 1, 1), ("a", 1, 2), ("a", 2, 1), ("a-000001", 1, 1), ("b", 11, 1), ("b", 1, 11)]
    for number, key in enumerate(keys):
        assert spool.get(*key) is None
        spool.put(*key, Sealed(header=bytes([number]), signature=b""))
    for number, key in enumerate(keys):
        found = spool.get(*key)
        assert found is not None
        assert found.header == bytes([number])


@pytest.mark.parametrize("call", ["fsync", "replace", "write"])
def test_a_failed_write_is_no_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    spool = Spool(tmp_path)
    with monkeypatch.context() as patch:
        if call == "write":
            patch.setattr("os.fdopen", fail)
        else:
            patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), fail)
        with pytest.raises(OSError, match="No space"):
            spool.put("job", 1, 1, REPLY)
    assert Spool(tmp_path).get("job", 1, 1) is None
    spool.put("job", 1, 1, REPLY)
    assert spool.get("job", 1, 1) == REPLY

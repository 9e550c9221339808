"""What a hostile reply costs in memory: less than twice the model, whatever it holds."""

import json
import tracemalloc
from typing import Any

import numpy as np
import pytest

from collegium.core.codec import codec
from collegium.core.digest import sha256_hex
from collegium.core.layout import Layout
from collegium.core.mechanism import MechanismSpec, spec_digest
from collegium.core.messages import Sealed, Update
from collegium.core.signing import generate_key
from collegium.server.admission import Admission, Expected, Member
from collegium.simulations.lies import SEALED_LIES, Liar

SIZE = 800_000
LAYOUT = Layout.of({"w": (SIZE,)})
SPEC = MechanismSpec(
    unit="record",
    relation="add-or-remove-one",
    clip_norm=1.0,
    noise_multiplier=1.0,
    sampler="poisson",
    sampling_rate=0.5,
    public_records=40,
    normaliser=20.0,
    steps=1,
    batch_cap=0,
    delta=1e-3,
    trainable_digest=LAYOUT.digest,
)
KEY = generate_key()
EXPECTED = Expected(job="0" * 32, round=1, attempt=1, base_sha256="sha256:base")
LARGE = {"nan", "infinite", "huge", "loud", "wrong-round", "changed-payload", "too-long"}


def admission() -> Admission:
    member = Member(public_key=KEY.public_key(), spec=SPEC, public_records=40, weight=1.0)
    return Admission(
        layout=LAYOUT, codec=codec("float32"), members={"s0": member}, learning_rate=1.0
    )


def honest() -> Sealed:
    vector = np.full(SIZE, 1e-4, dtype=np.float32)
    return Update(
        job=EXPECTED.job,
        site="s0",
        round=1,
        attempt=1,
        base_sha256=EXPECTED.base_sha256,
        layout=LAYOUT.digest,
        spec=spec_digest(SPEC),
        ledger_head="sha256:" + "0" * 64,
        codec="float32",
        metrics={},
    ).seal(KEY, codec("float32").encode(vector))


def peak_of(judge: Any) -> int:
    """Return how many bytes more than before were in memory at once, at most."""
    tracemalloc.start()
    try:
        judge()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", [None, *sorted(LARGE)])
def test_judging_a_reply_needs_no_second_copy(name: str | None) -> None:
    """Beside the reply itself, which is one model: a small part of another."""
    reply, code = honest(), "ok"
    if name is not None:
        lie, code = SEALED_LIES[name]
        reply = lie(Liar(key=KEY, codec=codec("float32"), size=SIZE), reply)
    gate, found = admission(), []
    more = peak_of(lambda: found.append(gate.admit("s0", reply, EXPECTED)[0].code))
    assert found == [code]
    assert more < len(reply.payload) / 2


@pytest.mark.parametrize("value", [3e38, -3e38])
def test_the_largest_finite_values_are_too_large_not_infinite(value: float) -> None:
    vector = np.full(SIZE, value, dtype=np.float32)
    sealed = honest()
    update = Update.open(sealed, KEY.public_key())
    reply = update.seal(KEY, codec("float32").encode(vector))
    assert json.loads(reply.header)["payload_sha256"] == sha256_hex(reply.payload)
    assert admission().admit("s0", reply, EXPECTED)[0].code == "norm"

"""Every lie is refused with its own code, the round goes on, and honest updates pass."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from collegium.core.codec import codec
from collegium.core.messages import Decline, Sealed, Update
from collegium.core.signing import generate_key
from collegium.privacy.bounds import update_norm_bound
from collegium.privacy.ledger import GENESIS_HEAD
from collegium.server.admission import Admission, Expected
from collegium.server.told import figures_of
from collegium.simulations.faults import CANARY, LIES, REPLAY, Liar, Lie, lying

JOB = "0" * 32
BASE = "sha256:" + "1" * 64
EXPECTED = Expected(job=JOB, round=3, attempt=1, base_sha256=BASE)


class Desk:
    """An admission over a lab's members, and honest updates to send to it."""

    def __init__(self, lab: Any, name: str = "float32") -> None:
        self.lab, self.codec = lab, codec(name)
        self.layout = lab.consortium.layout
        self.members = lab.consortium.members
        self.keys = {site.name: site._key for site in lab.consortium.sites}
        self.admission = Admission(
            layout=self.layout, codec=self.codec, members=self.members, learning_rate=1.0
        )

    def update(
        self, signer: str = "s0", *, vector: np.ndarray | None = None, **changes: Any
    ) -> Sealed:
        """A signed update."""
        from collegium.core.mechanism import spec_digest

        if vector is None:
            vector = np.full(self.layout.size, 0.01, dtype=np.float32)
        values: dict[str, Any] = {
            "job": JOB, "site": signer, "round": 3, "attempt": 1, "base_sha256": BASE,
            "layout": self.layout.digest, "spec": spec_digest(self.members[signer].spec),
            "ledger_head": GENESIS_HEAD, "codec": self.codec.name, "metrics": {},
        }  # fmt: skip
        return Update(**values | changes).seal(self.keys[signer], self.codec.encode(vector))

    def code(self, reply: Sealed, site: str = "s0", expected: Expected = EXPECTED) -> str:
        """The verdict's code; an update comes along if and only if it is ok."""
        verdict, admitted = self.admission.admit(site, reply, expected)
        assert verdict.ok == (verdict.code == "ok") == (admitted is not None)
        return verdict.code


@pytest.fixture
def desk(make_lab: Any) -> Desk:
    """A desk for float32 updates."""
    return Desk(make_lab())


@pytest.mark.parametrize("name", ["float32", "bf16", "int8"])
def test_honest_updates_pass_and_decode(make_lab: Any, name: str) -> None:
    desk = Desk(make_lab(), name)
    vector = np.linspace(-1, 1, desk.layout.size).astype(np.float32)
    reply = desk.update(vector=vector)
    verdict, admitted = desk.admission.admit("s0", reply, EXPECTED)
    assert verdict.ok
    assert admitted is not None
    np.testing.assert_array_equal(desk.admission.decode(reply), admitted.vector)
    assert np.linalg.norm(admitted.vector - vector) <= desk.codec.relative_error * 3 + 1e-9


@pytest.mark.parametrize("name", ["float32", "bf16", "int8"])
def test_the_largest_honest_update_passes_and_twice_that_does_not(make_lab: Any, name: str) -> None:
    desk = Desk(make_lab(), name)
    bound = update_norm_bound(
        desk.members["s0"].spec, size=desk.layout.size, public_records=40, learning_rate=1.0
    )
    direction = np.random.default_rng(0).normal(size=desk.layout.size)
    largest = (bound * direction / np.linalg.norm(direction) * (1 - 1e-6)).astype(np.float32)
    assert desk.code(desk.update(vector=largest)) == "ok"
    assert desk.code(desk.update(vector=largest * 2)) == "norm"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"job": "1" * 32}, "job"),
        ({"round": 2}, "round"),
        ({"attempt": 2}, "attempt"),
        ({"base_sha256": "sha256:x"}, "base"),
        ({"layout": "sha256:x"}, "layout"),
        ({"codec": "bf16"}, "codec"),
        ({"spec": "sha256:x"}, "mechanism"),
    ],
)
def test_another_invitations_update(desk: Desk, changes: dict[str, Any], code: str) -> None:
    assert desk.code(desk.update(**changes)) == code


@pytest.mark.parametrize(
    ("metrics", "code"),
    [
        ({}, "ok"),
        ({"accuracy": 0.5, "majority": 1}, "ok"),
        ({"accuracy": 1.5}, "metrics"),
        ({"accuracy": -1e9}, "metrics"),
        ({"rmse": 1e12}, "metrics"),
        ({"correct": 5.0, "records": 9.0}, "metrics"),
        ({"accuracy": 0.5, CANARY: 0.5}, "metrics"),
    ],
)
def test_only_figures_that_were_asked_for(
    desk: Desk, make_plan: Callable[..., Any], metrics: dict[str, float], code: str
) -> None:
    asked = replace(EXPECTED, figures=figures_of(make_plan(2)))
    assert desk.code(desk.update(metrics=metrics), expected=asked) == code
    assert desk.code(desk.update(metrics=metrics)) == ("ok" if not metrics else "metrics")


def test_a_site_cannot_speak_for_another(desk: Desk) -> None:
    assert desk.code(desk.update("s0"), site="s1") == "signature"
    assert desk.code(desk.update("s0", site="s1"), site="s0") == "roster"
    assert desk.code(desk.update("s0"), site="nobody") == "roster"


def test_declines(desk: Desk) -> None:
    def declined(**changes: Any) -> str:
        values: dict[str, Any] = {
            "job": JOB, "site": "s0", "round": 3, "attempt": 1, "code": "budget",
        }  # fmt: skip
        return desk.code(Decline(**values | changes).seal(desk.keys["s0"]))

    assert declined() == "budget"
    for changes in ({"job": "1" * 32}, {"round": 2}, {"site": "s1"}, {"attempt": 2}):
        assert declined(**changes) == "round"
    stranger = Decline(job=JOB, site="s0", round=3, attempt=1, code="budget").seal(generate_key())
    assert desk.code(stranger) in {"shape", "signature"}


def test_swapped_payloads(desk: Desk) -> None:
    one, other = desk.update(), desk.update(vector=np.ones(desk.layout.size, dtype=np.float32))
    assert desk.code(replace(one, payload=other.payload)) == "payload"
    assert desk.code(replace(one, payload=b"")) == "shape"


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf])
def test_an_int8_block_with_a_bad_scale(make_lab: Any, scale: float) -> None:
    """The scales are a peer's float32: they are looked at after decoding, without a warning."""
    desk = Desk(make_lab(), "int8")
    payload = np.float32(scale).tobytes() + bytes([1] * desk.layout.size)
    honest = desk.update()
    update = Update.open(honest, desk.keys["s0"].public_key())
    assert desk.code(update.seal(desk.keys["s0"], payload)) == "nonfinite"


# --- end to end -----------------------------------------------------------------------------


def run_with(lab: Any, lie: Lie) -> list[tuple[int, str, str]]:
    """Run with s1 lying; return its answers."""
    liar = Liar(
        key=lab.sites["s1"]._key,
        codec=codec(lab.plan.codec.name),
        size=lab.consortium.layout.size,
    )
    lab.run(lambda name, app: lying(app, lie, liar) if name == "s1" else app)
    return [answer for answer in lab.answers if answer[1] == "s1"]


@pytest.mark.parametrize("name", LIES)
def test_every_lie_is_refused_and_the_round_goes_on(
    make_lab: Any, make_plan: Callable[..., Any], name: str
) -> None:
    lie, code = LIES[name]
    lab = make_lab(make_plan(3, rounds=2))
    assert run_with(lab, lie) == [(1, "s1", code), (2, "s1", code)]
    for release in lab.rounds:
        assert release.sites == ("s0", "s2")
        assert release.refused == (("s1", code),)
        assert release.late == ()
    assert sorted(path.name for path in (lab.folder / "updates").rglob("s1.*")) == []


def test_a_lie_leaves_no_trace_in_the_model(make_lab: Any, make_plan: Callable[..., Any]) -> None:
    """Whatever s1 lies, the model is the one of the other two alone."""
    found = set()
    for number, name in enumerate(("nan", "huge", "bad-signature", "false-decline")):
        lab = make_lab(make_plan(3, rounds=2), folder=str(number))
        run_with(lab, LIES[name][0])
        found.add(lab.rounds[-1].model_sha256)
    assert len(found) == 1


def test_a_replay_is_refused_from_the_second_round_on(
    make_lab: Any, make_plan: Callable[..., Any]
) -> None:
    lie, code = REPLAY
    lab = make_lab(make_plan(3, rounds=3))
    assert run_with(lab, lie) == [(1, "s1", "ok"), (2, "s1", code), (3, "s1", code)]


def test_what_a_liar_says_is_shown_to_nobody(
    make_lab: Any, make_plan: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG", logger="collegium")
    lab = make_lab(make_plan(3, rounds=2))
    for name in ("error-text", "extra-config", "extra-key", "invented-code"):
        lab = make_lab(make_plan(3, rounds=1), folder=name)
        run_with(lab, LIES[name][0])
        for path in (lab.folder / "rounds").rglob("*"):
            assert CANARY.encode() not in path.read_bytes()
    assert CANARY not in caplog.text

"""A coordinator with its own key alone: every lie is refused, nothing reserved, no batch drawn."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from collegium.client import train
from collegium.core.messages import BadMessage, Decline, Invitation, Sealed, Update
from collegium.core.signing import generate_key

Make = Callable[..., Any]


class Stage:
    """One real site, its ledger, and how many batches were ever drawn from its records."""

    def __init__(self, town: Any, drawn: list[int]) -> None:
        self.town, self.drawn = town, drawn
        self.site = town.open()

    def ask(self, **changes: Any) -> Sealed:
        """The coordinator's signed question."""
        return self.town.ask(self.site, **changes)

    def base(self, shift: float) -> np.ndarray:
        """The open model, moved."""
        return self.site._trainer.open_vector + np.float32(shift)

    @property
    def reserves(self) -> int:
        """Reserves in the site's ledger."""
        return sum(entry.kind == "reserve" for entry in self.site.ledger.entries())


@pytest.fixture
def stage(make_town: Make, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    """A real (not a lab) site; each drawn batch is counted where the step is taken."""
    drawn: list[int] = []
    step = train.private_gradient

    def counted(*arguments: Any, **options: Any) -> Any:
        drawn.append(1)
        return step(*arguments, **options)

    monkeypatch.setattr(train, "private_gradient", counted)
    town = make_town()
    town.approve()
    made = Stage(town, drawn)
    yield made
    made.site.ledger.close()


LIES: dict[str, tuple[str, Callable[[Stage], dict[str, Any]]]] = {
    "another plan (raised epsilon, less noise)": ("plan", lambda s: {"plan": "sha256:" + "1" * 64}),
    "another site's invitation": ("roster", lambda s: {"site": "s1"}),
    "round 0": ("round", lambda s: {"round": 0}),
    "a round beyond the plan": ("round", lambda s: {"round": 4}),
    "a negative attempt": ("round", lambda s: {"attempt": -1}),
    "expired": ("deadline", lambda s: {"deadline": time.time() - 5}),
    "wrong layout": ("layout", lambda s: {"layout": "sha256:" + "2" * 64}),
    "too short a model": ("shape", lambda s: {"base": s.base(0)[:-1]}),
    "a first round from its own model": ("base", lambda s: {"base": s.base(0.5)}),
    "NaN": ("nonfinite", lambda s: {"round": 2, "base": s.base(float("nan"))}),
    "infinite": ("nonfinite", lambda s: {"round": 2, "base": s.base(float("inf"))}),
    "a huge norm": ("norm", lambda s: {"round": 2, "base": s.base(1e9)}),
    "a head never seen here": ("ledger", lambda s: {"site_ledger_head": "sha256:" + "3" * 64}),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_each_lie_is_declined_unspent(stage: Stage, lie: str) -> None:
    code, changes = LIES[lie]
    reply = stage.site.train(stage.ask(**changes(stage)))
    assert Decline.open(reply, stage.site.public_key).code == code
    assert (stage.reserves, stage.drawn) == (0, [])
    assert not list((stage.town.home / "state" / "spool").iterdir())


STRANGERS: dict[str, Callable[[Stage], Sealed]] = {
    "another key": lambda s: s.ask(key=generate_key()),
    "an unsigned change": lambda s: _changed(s.ask(), b'"round":1', b'"round":2'),
    "a field for seeded noise": lambda s: _changed(s.ask(), b'"round":1', b'"round":1,"seed":7'),
    "a signed field for seeded noise": lambda s: _with_seed(s.ask(), s.town.coordinator),
    "other bytes of the model": lambda s: _payload(s.ask()),
}


def _changed(sealed: Sealed, old: bytes, new: bytes) -> Sealed:
    assert old in sealed.header
    return Sealed(
        header=sealed.header.replace(old, new), signature=sealed.signature, payload=sealed.payload
    )


def _with_seed(honest: Sealed, key: Any) -> Sealed:
    """A header with one more key, properly signed by the coordinator: no message has a seed."""
    import json

    from collegium.core.digest import canonical_bytes
    from collegium.core.signing import pae

    header = canonical_bytes(json.loads(honest.header) | {"seed": 7})
    kind = Invitation.signed_bytes(honest).split(b" ")[2].decode()
    signature = key.sign(pae(kind, header))
    return Sealed(header=header, signature=signature, payload=honest.payload)


def _payload(sealed: Sealed) -> Sealed:
    return Sealed(
        header=sealed.header,
        signature=sealed.signature,
        payload=sealed.payload[:-1] + bytes([sealed.payload[-1] ^ 1]),
    )


@pytest.mark.parametrize("case", STRANGERS)
def test_what_is_not_signed_by_the_coordinator_gets_no_answer(stage: Stage, case: str) -> None:
    with pytest.raises(BadMessage):
        stage.site.train(STRANGERS[case](stage))
    assert (stage.reserves, stage.drawn) == (0, [])


def test_the_honest_question_is_what_a_lie_differs_from(stage: Stage) -> None:
    """Without this, a site that refuses everything would pass all of the above."""
    Update.open(stage.site.train(stage.ask()), stage.site.public_key)
    assert (stage.reserves, len(stage.drawn)) == (1, 1)
    assert not stage.site.reproducible_noise


def test_a_replayed_round_gets_the_same_bytes_and_draws_nothing(stage: Stage) -> None:
    first = stage.site.train(stage.ask())
    for _ in range(3):
        assert stage.site.train(stage.ask(nonce="again")) == first
    assert (stage.reserves, len(stage.drawn)) == (1, 1)


def test_a_plan_with_a_seed_does_not_seed_a_real_site(stage: Stage) -> None:
    """[simulation] is not signed and not honoured: two trainings differ."""
    assert stage.town.plan.simulation is not None
    one, two = (
        stage.site._trainer.train(
            stage.base(0), stage.site.records, stage.site.spec, stage.site._noise, site="s0",
            round=1,
        )
        for _ in range(2)
    )  # fmt: skip
    assert one.tobytes() != two.tobytes()

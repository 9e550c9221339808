"""A site that was killed and started again: the same bytes, one charge, nothing made twice."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collegium.client.site import Site
from collegium.client.spool import Spool
from collegium.core.codec import codec
from collegium.core.messages import (
    Update,
)
from collegium.simulations.consortium import open_ledger

Make = Callable[..., Any]


def reopened(counter: Any) -> Site:
    """The site as a new process would find it."""
    old = counter.site
    counter.ledger.close()
    counter.ledger = open_ledger(
        counter.lab.folder, old.name, old._data, old.ledger.budget, old.ledger._key
    )
    from collegium.client.site import Identity

    return Site(
        identity=Identity(name=old.name, key=old._key, coordinator=old._coordinator),
        plan=old._plan, spec=old.spec, data=old._data, trainer=old._trainer, policy=old._policy,
        ledger=counter.ledger, spool=Spool(old._spool._folder), noise=old._noise,
        step_bound=old._step_bound,
    )  # fmt: skip


@pytest.mark.parametrize("where", ["reserve", "train", "seal", "put", "commit"])
def test_crash_at_each_step_then_the_same_bytes_and_one_charge(
    make_counter: Make, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    undisturbed = make_counter(folder="undisturbed")
    counter = make_counter(folder="crashed")
    # the same key, so that the same update is the same bytes
    counter.site._key = undisturbed.site._key
    counter.public = undisturbed.public
    target: Any = {
        "reserve": (counter.ledger, "reserve"),
        "train": (counter.site._trainer, "train"),
        "seal": (Update, "seal"),
        "put": (counter.site._spool, "put"),
        "commit": (counter.ledger, "commit"),
    }[where]

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*target, die)
        with pytest.raises(Killed):
            counter.site.train(counter.ask())
    expected = undisturbed.site.train(undisturbed.ask())
    opened = codec("float32").decode
    site = reopened(counter)
    reply = site.train(counter.ask())
    assert opened(reply.payload, 8).tobytes() == opened(expected.payload, 8).tobytes()
    assert counter.kinds == ["genesis", "reserve", "commit"]
    assert site.train(counter.ask()) == reply


def test_a_damaged_spool_file_is_never_sent(make_counter: Make) -> None:
    counter = make_counter()
    counter.site.train(counter.ask())
    (path,) = (counter.lab.folder / "sites" / "s0" / "spool").iterdir()
    raw = path.read_bytes()
    for damaged in (raw[:-1], raw[:50], b"", raw[:20] + b"X" + raw[21:], raw + b"more"):
        path.write_bytes(damaged)
        assert counter.code(counter.site.train(counter.ask())) == "internal"
    assert counter.kinds == ["genesis", "reserve", "commit"]


def test_what_was_sent_and_is_lost_is_never_made_again(make_counter: Make) -> None:
    """The spool restored from an older backup: fresh noise for a paid and sent answer is a leak."""
    counter = make_counter()
    counter.site.train(counter.ask())
    (path,) = (counter.lab.folder / "sites" / "s0" / "spool").iterdir()
    path.unlink()
    before = counter.ledger.entries()
    assert counter.code(counter.site.train(counter.ask())) == "internal"
    assert counter.ledger.entries() == before
    assert not path.exists()


def test_only_what_was_committed_is_repeated(make_counter: Make) -> None:
    """Another signed reply in the file's place (an older backup of another folder) is not sent."""
    counter, other = make_counter(folder="one"), make_counter(folder="other")
    other.site._key = counter.site._key
    other.site._trainer.train = lambda *_, **__: np.zeros(8, dtype=np.float32)
    counter.site.train(counter.ask())
    other.site.train(other.ask())
    name = f"{'0' * 32}-000001-1.reply"
    theirs = other.lab.folder / "sites" / "s0" / "spool" / name
    (counter.lab.folder / "sites" / "s0" / "spool" / name).write_bytes(theirs.read_bytes())
    assert counter.code(counter.site.train(counter.ask())) == "internal"


def test_a_ledger_older_than_what_the_coordinator_has_seen_is_not_used(
    make_counter: Make,
) -> None:
    """A restored snapshot would spend the same budget twice; the witness tells."""
    counter = make_counter()
    first = Update.open(counter.site.train(counter.ask()), counter.public)
    known = counter.ask(round=2, base=counter.base(0.01), site_ledger_head=first.ledger_head)
    assert counter.code(counter.site.train(known)) == "ok"
    unknown = counter.ask(round=3, base=counter.base(0.01), site_ledger_head="sha256:" + "9" * 64)
    before = counter.ledger.entries()
    assert counter.code(counter.site.train(unknown)) == "ledger"
    assert counter.ledger.entries() == before

"""The invariants of a federation under faults, checked without the engine's help.

Signatures, aggregates and chains are computed here a second time, from the bytes on the disk,
the network's record of what was sent and the sites' own books.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from ..core.codec import codec
from ..core.digest import sha256_hex
from ..core.layout import Vector
from ..server.store import Release
from .lies import CANARY
from .nemesis import JOB, UPDATES, Stage
from .nemesis_scenario import DEADLINE_S

_SLACK_S = 30.0  # a look, a fetch and the last sleep
_INVITATIONS = 3

Floats = NDArray[np.float64]


def breaks(stage: Stage) -> list[str]:
    """Return every invariant that does not hold, each with what was found; empty when all do."""
    return [
        *_aggregates(stage), *_spend(stage), *_chain(stage), *_ends(stage), *_secrets(stage),
        *_words(stage),
    ]  # fmt: skip


# --- I1, I3, I7: what was aggregated --------------------------------------------------------


def _aggregates(stage: Stage) -> Iterator[str]:
    """Each model is the exact function of signed, unique updates for its round and base."""
    plan, base, twin = stage.case.plan, stage.opened, _Twin(stage)
    roster = [site.name for site in plan.sites]
    for release in stage.histories[-1]:
        if list(release.sites) != [name for name in roster if name in release.sites]:
            yield f"I3 round {release.round} counts a site twice or out of order"
        vectors: list[tuple[str, Vector]] = []
        for name in release.sites:
            if (problem := _kept(stage, release, name, vectors)) is not None:
                yield f"I1 round {release.round}: {problem}"
        honest = dict(vectors)
        for name in [] if stage.case.fresh_noise else release.sites:
            if name in honest and not _is_honest(stage, name, release.round, base, honest[name]):
                yield f"I7 round {release.round}: {name} sends other bytes than without faults"
        base = twin.step(base, [(vector, _weight(stage, name)) for name, vector in vectors])
        if sha256_hex(base.astype("<f4").tobytes()) != release.model_sha256:
            yield f"I1 round {release.round} is not the aggregate of its updates"
            return
    done = stage.ends[-1][0] == "complete" and stage.released is not None
    if done and stage.released.tobytes() != twin.released(base).tobytes():  # type: ignore[union-attr]
        yield "I7 the released model is not the one of the last rounds"


def _kept(
    stage: Stage, release: Release, name: str, vectors: list[tuple[str, Vector]]
) -> str | None:
    """Take a kept update in, or return what is wrong with it."""
    folder = UPDATES / f"round-{release.round:06d}"
    # a lying disk may lose the newest ones again: what it acknowledged is what was folded
    files = stage.disk.written if stage.case.disk_lies else stage.disk.files
    header, payload = files.get(folder / f"{name}.header"), files.get(folder / f"{name}.payload")
    if header is None or payload is None:
        return f"the update of {name} is not kept"
    text, _, signature = header.rpartition(b"\n")
    kind = b"application/vnd.collegium.update+json"
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(text), text)
    try:
        key = Ed25519PrivateKey.from_private_bytes(stage.keys[name]).public_key()
        key.verify(bytes.fromhex(signature.decode()), message)
        values: dict[str, Any] = json.loads(text)
    except (InvalidSignature, ValueError):
        return f"{name} did not sign its update"
    given = (values["job"], values["site"], values["round"], values["base_sha256"])
    if given != (JOB, name, release.round, release.prev_sha256):
        return f"the update of {name} answers another question: {given[2:]}"
    if values["payload_sha256"] != sha256_hex(payload):
        return f"the update of {name} has another payload"
    if name in dict(stage.case.liars) and dict(stage.case.liars)[name] != "replay":
        return f"the lie of {name} was taken in"
    size = stage.case.size
    vectors.append((name, codec(stage.case.plan.codec.name).decode(payload, size)))
    return None


def _is_honest(stage: Stage, name: str, round: int, base: Vector, found: Vector) -> bool:
    wire = codec(stage.case.plan.codec.name)
    expected = stage.sites[name].update(round, base, 0)
    return np.array_equal(wire.decode(wire.encode(expected), stage.case.size), found)


def _weight(stage: Stage, name: str) -> float:
    return stage.case.plan.site(name).fold_weight


class _Twin:
    """Both strategies once more, plainly: Reddi et al., Algorithm 2, and its special case."""

    def __init__(self, stage: Stage) -> None:
        self._config, size = stage.case.plan.strategy, stage.case.size
        self._m: Floats = np.zeros(size)
        self._v: Floats = np.full(size, self._config.tau**2)
        count = stage.case.plan.rounds.count
        averaged = int(count * self._config.iterate_average + 1e-9)
        self._first = count - averaged + 1 if averaged else count + 1
        self._round, self._average = 0, np.zeros(size)

    def step(self, base: Vector, updates: list[tuple[Vector, float]]) -> Vector:
        """Return the model after one round of these updates."""
        c = self._config
        total, weights = np.zeros(len(base)), 0.0
        for vector, weight in updates:
            total = total + weight * vector.astype(np.float64)
            weights += weight
        mean = total / weights if weights else total
        if c.name == "fedadam":
            self._m = c.beta1 * self._m + (1 - c.beta1) * mean
            self._v = c.beta2 * self._v + (1 - c.beta2) * mean**2
            step = c.server_learning_rate * self._m / (np.sqrt(self._v) + c.tau)
        else:
            step = c.server_learning_rate * mean
        vector = (base.astype(np.float64) + step).astype(np.float32)
        self._round += 1
        if self._round >= self._first:
            share = self._round - self._first + 1
            self._average = self._average + (vector - self._average) / share
        return vector

    def released(self, last: Vector) -> Vector:
        """Return what is released after the last round."""
        return self._average.astype(np.float32) if self._round >= self._first else last


# --- I2: what was spent ---------------------------------------------------------------------


def _spend(stage: Stage) -> Iterator[str]:
    """No more noise draws left a site than its ledger has been charged for."""
    for name, site in stage.sites.items():
        charged = Counter(entry.attempt for entry in site.books.entries if entry.kind == "reserve")
        draws: dict[Any, set[str]] = defaultdict(set)
        for attempt, payload in site.books.left:
            draws[attempt].add(payload)
        for attempt, payloads in draws.items():
            if len(payloads) > charged[attempt]:
                yield f"I2 {name} sent {len(payloads)} draws for {charged[attempt]} charges"
        rounds = stage.case.plan.rounds.count
        if sum(charged.values()) > rounds:
            yield f"I2 {name} was charged {sum(charged.values())} times for {rounds} rounds"


# --- I4: the chain --------------------------------------------------------------------------


def _chain(stage: Stage) -> Iterator[str]:
    """A durable round is never undone, and each begins where the one before it ended."""
    opened = sha256_hex(stage.opened.astype("<f4").tobytes())
    for release, before in zip(stage.histories[-1], [None, *stage.histories[-1]], strict=False):
        if release.prev_sha256 != (before.model_sha256 if before else opened):
            yield f"I4 round {release.round} does not follow from the one before it"
    if stage.restored:
        return  # an older copy was put back by hand: the rounds after it are made again
    for earlier, later in zip(stage.histories, stage.histories[1:], strict=False):
        if later[: len(earlier)] != earlier:
            yield "I4 a durable round was undone"
    models = [opened, *(release.model_sha256 for release in stage.histories[-1])]
    for _, _, kind, sealed in stage.post.sent:
        if kind == "train":
            asked: dict[str, Any] = json.loads(sealed.header)
            number: int = asked["round"]
            if number > len(models) or asked["base_sha256"] != models[number - 1]:
                yield f"I4 round {number} was asked from another model than the released one"


# --- I5, I6: ends and secrets ---------------------------------------------------------------


def _ends(stage: Stage) -> Iterator[str]:
    """Every life of the coordinator ends in time or says why; without faults the run is done."""
    rounds = stage.case.plan.rounds.count
    longest = DEADLINE_S * (1 + _INVITATIONS * rounds + 2) + _SLACK_S
    for end, seconds in stage.ends:
        if end.startswith("broken"):
            yield f"I5 {end}"
        if seconds > longest:
            yield f"I5 one start took {seconds:.0f} s, more than {longest:.0f} s"
    last = stage.ends[-1][0]
    if last == "complete":
        if len(stage.histories[-1]) != rounds:
            yield f"I5 a complete run has {len(stage.histories[-1])} of {rounds} rounds"
    elif not _may_stop(stage, last):
        yield f"I5 the run did not end although faults had ceased: {last}"


def _may_stop(stage: Stage, end: str) -> bool:
    """Return whether this is a stop that no later start can cure by itself."""
    if stage.restored and "another base model" in end:
        return True
    # every site that could answer lies: there is nothing to aggregate
    honest = len(stage.sites) - len(stage.case.liars)
    return honest == 0 and "admitted no update" in end


def _secrets(stage: Stage) -> Iterator[str]:
    """No private key's bytes stand in a message or in a file."""
    seen = [sealed.header + sealed.payload for _, _, _, sealed in stage.post.sent]
    seen += [sealed.header + sealed.payload for sealed in stage.post.answers]
    everything = b"\n".join([*seen, *stage.disk.files.values(), stage.disk.snapshot()[1]])
    for name, raw in stage.keys.items():
        if raw in everything or raw.hex().encode() in everything:
            yield f"I6 the private key of {name} is in a message or a file"


def _words(stage: Stage) -> Iterator[str]:
    """I8: no text that a site chose is in an event, a file or a report."""
    told = [line for line in stage.world.log if line.split(" ")[1] != "site"]
    files = b"\n".join([*stage.disk.files.values(), stage.disk.snapshot()[1]])
    if CANARY in "\n".join(told) or CANARY.encode() in files:
        yield "I8 a text that a site chose is in an event or a file"
    for name, metrics in stage.reports.items():
        if metrics != {"accuracy": 0.5}:
            yield f"I8 the report of {name} is not what an honest site tells"

"""``kill -9`` while a ledger is written: no acknowledged entry may be lost, none under-counted."""

from __future__ import annotations

import os
import random
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ledger_books import SPEC, attempt, grow, open_ledger

from collegium.core.signing import generate_key
from collegium.privacy.accountant import epsilon_of

KILLS_PER_LEDGER = 20
MOST_ROUNDS = 60
MOST_WAIT_S = 0.08
OPENING_SHARE = 0.3
"""Share of the kills that are timed from the start; the others from the first acknowledgement."""


@dataclass(slots=True)
class Seen:
    """What the killed writers had acknowledged, and what was found afterwards."""

    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    under_counted: int = 0
    unopened: list[str] = field(default_factory=list[str])
    killed_before_first: int = 0


def run(kills: int, seed: int) -> Seen:
    """Kill so many writers at random moments; each ledger lives through several kills."""
    chance, seen = random.Random(seed), Seen()
    _warm_up()
    while seen.kills < kills:
        folder = Path(tempfile.mkdtemp(prefix="kills"))
        try:
            _one_ledger(folder, min(KILLS_PER_LEDGER, kills - seen.kills), chance, seen)
        finally:
            shutil.rmtree(folder)
    return seen


def _warm_up() -> None:
    """Compute and import here what every child would otherwise compute before its first append."""
    for count in range(1, MOST_ROUNDS + 1):
        epsilon_of([(SPEC, count)], SPEC.delta)
    with tempfile.TemporaryDirectory() as folder:
        key = generate_key()
        for rounds in ([1], [2]):
            ledger = open_ledger(Path(folder), key)
            grow(ledger, rounds)
            ledger.close()


def _one_ledger(folder: Path, kills: int, chance: random.Random, seen: Seen) -> None:
    key, known, reserves = generate_key(), set[str](), 0
    for _ in range(kills):
        early = chance.random() < OPENING_SHARE
        told = _killed(folder, key, reserves + 1, chance.uniform(0.0, MOST_WAIT_S), early=early)
        seen.kills += 1
        seen.acknowledged += len(told)
        seen.killed_before_first += not told
        known |= {head for _, head in told}
        least = reserves + sum(kind == "reserve" for kind, _ in told)
        try:
            ledger = open_ledger(folder, key)
        except Exception as error:  # whatever it is, the site could not go on: count it
            seen.unopened.append(f"{type(error).__name__}: {error}")
            return
        seen.lost += sum(not ledger.knows(head) for head in known)
        reserves = sum(entry.kind == "reserve" for entry in ledger.entries())
        seen.under_counted += ledger.epsilon() < epsilon_of([(SPEC, least)], SPEC.delta)
        ledger.close()
        if reserves > MOST_ROUNDS - 25:
            return


def _killed(
    folder: Path, key: Ed25519PrivateKey, first: int, wait_s: float, *, early: bool
) -> list[tuple[str, str]]:
    """Fork a writer, kill it after ``wait_s``, and return (kind, head) of all that it acked."""
    inbox, outbox = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(inbox)
            for line in _append(folder, key, first):
                os.write(outbox, line.encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(outbox)
    if not early:
        select.select([inbox], [], [], 10.0)
    time.sleep(wait_s)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with os.fdopen(inbox, "rb") as stream:
        lines = stream.read().decode().splitlines()
    return [(kind, head) for kind, _, head in (line.partition(" ") for line in lines)]


def _append(folder: Path, key: Ed25519PrivateKey, first: int) -> Iterator[str]:
    """Append until killed; each line is sent only after the append has returned."""
    ledger = open_ledger(folder, key)
    for number in range(first, min(first + 25, MOST_ROUNDS)):
        names = attempt(number)
        ledger.reserve(**names, base_sha256="sha256:b", spec=SPEC)
        yield f"reserve {ledger.head}\n"
        ledger.commit(**names, update_sha256="sha256:u")
        yield f"commit {ledger.head}\n"

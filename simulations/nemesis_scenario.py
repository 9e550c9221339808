"""What one seed stands for: a small federation and everything that goes wrong with it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from ..core import plan as p
from .lies import HELLO_LIES, REPORT_LIES, SEALED_LIES

HORIZON_S = 240.0
"""When faults cease: from then on every run must come to its end."""

DEADLINE_S = 20.0

BOUNDARIES = (
    *("open", "read", "remove", "nodes", "fetch", "fetched", "sleep"),
    *("before update", "after update", "before checkpoint", "after checkpoint"),
    *("before row", "after row"),
    *(f"{when} send {kind}" for when in ("before", "after") for kind in ("query.hello", "train")),
    *("before send evaluate", "after send evaluate"),
    *(f"event {kind}" for kind in ("seen", "gone", "invited", "lost", "answered", "late", "round")),
    *("event restored", "event stopped"),
)
"""Every boundary of the coordinator's actions: it dies at each of them, in many seeds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Probability of each fault of the network, per message."""

    request_lost: float = 0.0
    reply_lost: float = 0.0
    error_made: float = 0.0
    twice: float = 0.0
    late: float = 0.0
    reply_corrupt: float = 0.0
    request_corrupt: float = 0.0
    stray: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A plan of ``size`` coordinates, and faults; times in seconds, windows as (from, to).

    ``crashes`` and ``site_crashes`` are numbers of actions, counted over the whole run, and
    ``crashes_in`` those of one kind of action.
    """

    seed: int
    plan: p.Plan
    size: int
    fresh_noise: bool
    rates: Rates = field(default_factory=Rates)
    crashes: frozenset[int] = frozenset()
    crashes_in: frozenset[tuple[str, int]] = frozenset()
    site_crashes: frozenset[int] = frozenset()
    cuts: tuple[tuple[str, float, float], ...] = ()
    post_down: tuple[tuple[float, float], ...] = ()
    renames: tuple[tuple[str, float], ...] = ()
    disk_full: tuple[tuple[float, float], ...] = ()
    site_full: tuple[tuple[str, float, float], ...] = ()
    clock_jumps: tuple[tuple[float, float], ...] = ()
    skews: tuple[tuple[str, float], ...] = ()
    liars: tuple[tuple[str, str], ...] = ()
    talkers: tuple[tuple[str, str], ...] = ()
    disk_lies: bool = False
    disk_rots: bool = False
    backup_at: float | None = None


def scenario(seed: int) -> Scenario:
    """Return the federation of a seed; each kind of fault is in about every third of them."""
    rng = random.Random(f"collegium/nemesis/1/{seed}")
    talk = random.Random(f"collegium/nemesis/talk/1/{seed}")
    names = tuple(f"s{number}" for number in range(rng.randint(2, 5)))
    flapping = rng.random() < 0.1  # half of the sites come and go all the time
    return Scenario(
        seed=seed,
        plan=_plan(rng, names),
        size=rng.choice((1, 8, 33)),
        fresh_noise=rng.random() < 0.5,
        rates=_rates(rng),
        crashes=_numbers(rng, 6, 400),
        crashes_in=frozenset(
            (rng.choice(BOUNDARIES), rng.randint(1, 8)) for _ in range(_count(rng, 4))
        ),
        site_crashes=_numbers(rng, 5, 120),
        cuts=_flaps(rng, names) if flapping else _windows_of(rng, names, 4, 60.0),
        post_down=_windows(rng, 2, 30.0),
        renames=tuple((rng.choice(names), rng.uniform(0, 150)) for _ in range(_count(rng, 4))),
        disk_full=_windows(rng, 2, 20.0),
        site_full=_windows_of(rng, names, 2, 40.0),
        clock_jumps=tuple(
            (rng.uniform(0, 150), rng.choice((-600.0, 600.0, 30.0))) for _ in range(_count(rng, 3))
        ),
        skews=tuple((rng.choice(names), rng.uniform(-3, 3)) for _ in range(_count(rng, 2))),
        liars=_liars(rng, names),
        talkers=_talkers(talk, names),
        disk_lies=rng.random() < 0.3,
        disk_rots=rng.random() < 0.3,
        backup_at=rng.uniform(0, 40) if rng.random() < 0.1 else None,
    )


def _plan(rng: random.Random, names: tuple[str, ...]) -> p.Plan:
    strategy, weighted = rng.choice(("mean", "mean", "fedadam")), rng.random() < 0.5
    return p.Plan(
        consortium="nemesis",
        sites=tuple(
            p.SiteRef(
                name=name, public_records=40, weight=rng.choice((1.0, 3.0)) if weighted else None
            )
            for name in names
        ),
        model=p.ModelRef(
            name="tabular:linear",
            task="classification",
            classes=("ill", "well"),
            bounds={"age": (-1.0, 1.0)},
        ),
        rounds=p.Rounds(
            count=rng.randint(1, 5),
            local_steps=1,
            local_learning_rate=1.0,
            deadline_s=DEADLINE_S,
            quorum=rng.choice((1.0, 0.75, 0.5)),
        ),
        strategy=p.StrategyConfig(name=strategy, iterate_average=rng.choice((0.0, 0.5))),
        codec=p.CodecConfig(name=rng.choice(("float32", "bf16", "int8"))),
        privacy=p.Privacy(epsilon=3.0, delta=1e-3, sampling_rate=0.5),
        simulation=p.Simulation(dataset="sklearn:breast_cancer", seed=1, baselines=False),
    )


def _rates(rng: random.Random) -> Rates:
    def rate(most: float) -> float:
        return rng.uniform(0, most) if rng.random() < 0.35 else 0.0

    return Rates(
        request_lost=rate(0.4),
        reply_lost=rate(0.4),
        error_made=rate(0.4),
        twice=rate(0.5),
        late=rate(0.5),
        reply_corrupt=rate(0.15),
        request_corrupt=rate(0.15),
        stray=rate(0.3),
    )


def _liars(rng: random.Random, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """At most one site in three lies, each all the time."""
    if rng.random() >= 0.25:
        return ()
    liars = rng.sample(names, max(1, len(names) // 3))
    lies = [*sorted(SEALED_LIES), "replay"]
    lies.remove("stranger")  # its key is drawn at random: the run would not repeat
    return tuple((name, rng.choice(lies)) for name in liars)


def _talkers(rng: random.Random, names: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Any site may lie about itself or in its report: its updates do not depend on it."""
    lies = [f"hello {name}" for name in HELLO_LIES] + [f"report {name}" for name in REPORT_LIES]
    return tuple((name, rng.choice(lies)) for name in names if rng.random() < 0.15)


def _count(rng: random.Random, most: int) -> int:
    return rng.randint(1, most) if rng.random() < 0.35 else 0


def _numbers(rng: random.Random, most: int, largest: int) -> frozenset[int]:
    wanted = rng.randint(1, most) if rng.random() < 0.6 else 0
    return frozenset(rng.randint(1, largest) for _ in range(wanted))


def _windows(rng: random.Random, most: int, longest: float) -> tuple[tuple[float, float], ...]:
    starts = [rng.uniform(0, 150) for _ in range(_count(rng, most))]
    return tuple((start, start + rng.uniform(0.5, longest)) for start in starts)


def _windows_of(
    rng: random.Random, names: tuple[str, ...], most: int, longest: float
) -> tuple[tuple[str, float, float], ...]:
    return tuple((rng.choice(names), *window) for window in _windows(rng, most, longest))


def _flaps(rng: random.Random, names: tuple[str, ...]) -> tuple[tuple[str, float, float], ...]:
    chosen = rng.sample(names, len(names) // 2)
    return tuple(
        (name, start, start + rng.uniform(1, 12))
        for name in chosen
        for start in (15.0 * number + rng.uniform(0, 3) for number in range(12))
    )

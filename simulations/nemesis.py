"""Deterministic fault simulation: the real engine, over a simulated network, disk and clock.

``play(seed)`` drives one small federation through everything that its seed makes go wrong. Real
are the drive, the round engine, roll call, admission, recovery, strategies, store, messages and
signatures, and the gate of the sites; nothing of Flower is imported. ``nemesis_check`` then holds
the event log, disk and network against the invariants.
"""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.codec import codec
from ..core.digest import sha256_hex
from ..core.errors import CollegiumError, Interrupted, Refused
from ..core.layout import Layout, Vector
from ..core.mechanism import MechanismSpec, spec_digest
from ..server.admission import Admission, Member
from ..server.drive import Drive, Task
from ..server.store import Release, Store
from ..strategies.catalog import strategy_for
from .lies import SEALED_LIES, replay
from .nemesis_disk import SimDisk
from .nemesis_post import SimPost
from .nemesis_scenario import DEADLINE_S, HORIZON_S, Scenario, scenario
from .nemesis_site import SimSite, Terms
from .nemesis_world import Crash, SimClock, Stuck, World

FOLDER, UPDATES = Path("run/rounds"), Path("run/updates")
JOB = "0123456789abcdef0123456789abcdef"

_STARTS = 40  # of the coordinator; more than any scenario's crashes and stops need
_PAUSE_S = 3.0  # before somebody starts it again


@dataclass(frozen=True, slots=True, kw_only=True)
class Kinds:
    """The classes that a simulation is made of; planted bugs replace one of them."""

    drive: type[Drive] = Drive
    store: type[Store] = Store
    admission: type[Admission] = Admission
    site: type[SimSite] = SimSite


@dataclass(slots=True, kw_only=True)
class Stage:
    """One simulation, on its way or over: what the checker looks at.

    ``histories`` are the store's rounds at every start and at the end; ``ends`` how each life of
    the coordinator ended, with its length in seconds; ``restored`` counts older copies put back.
    """

    case: Scenario
    world: World
    disk: SimDisk
    post: SimPost
    sites: dict[str, SimSite]
    task: dict[str, Any]
    keys: dict[str, bytes]
    opened: Vector
    histories: list[list[Release]]
    ends: list[tuple[str, float]]
    restored: int = 0
    released: Vector | None = None
    reports: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])


def play(seed: int, kinds: Kinds | None = None, case: Scenario | None = None) -> Stage:
    """Return the finished simulation of a seed; ``case`` replaces what the seed draws."""
    logging.getLogger("collegium").setLevel(logging.CRITICAL)
    stage = _stage(case or scenario(seed), kinds or Kinds())
    backups: list[Any] = []
    if (when := stage.case.backup_at) is not None:
        stage.world.at(when, lambda: backups.append(stage.disk.snapshot()))
    for _ in range(_STARTS):
        began = stage.world.time
        end = _live(stage, kinds or Kinds())
        stage.ends.append((end, stage.world.time - began))
        stage.world.note("end", how=end)
        if end == "complete" or began >= HORIZON_S:
            break
        stage.disk.crash()
        if backups and not stage.world.quiet:
            stage.disk.restore(backups.pop())
            stage.restored += 1
            stage.world.injected["older copy of the store"] += 1
            stage.world.note("restored")
        # once stopped for good, somebody looks at it after the faults have ceased
        wait = _PAUSE_S if len(stage.ends) < _STARTS // 2 else HORIZON_S
        stage.world.advance(wait)
    stage.world.crash_at, stage.world.crash_in = set(), set()
    store = _store(stage, kinds or Kinds())
    stage.histories.append(store.history())
    stage.world.note("history", models=[release.model_sha256 for release in store.history()])
    return stage


def _live(stage: Stage, kinds: Kinds) -> str:
    """Return how one life of the coordinator ended."""
    try:
        store = _store(stage, kinds)
        stage.histories.append(store.history())
        drive = kinds.drive(stage.post, Task(**stage.task, store=store))
        stage.released = drive.run()
        stage.reports = drive.reports(stage.released)
    except Crash as crash:
        return f"crash in {crash}"
    except Stuck:
        return "broken: it never ends"
    except (Interrupted, Refused) as error:
        return f"{type(error).__name__}: {error.what}"
    except CollegiumError as error:
        return f"broken: {type(error).__name__}: {error.what}"
    except (OSError, sqlite3.OperationalError) as error:
        return f"disk: {type(error).__name__}"
    except Exception as error:  # nothing else may come out of a run: an invariant is broken
        return f"broken: raised {type(error).__name__}: {error}"
    return "complete"


def _store(stage: Stage, kinds: Kinds) -> Store:
    return kinds.store(
        FOLDER,
        plan_digest=next(iter(stage.sites.values())).terms.plan,
        updates=UPDATES,
        disk=stage.disk,
        new_job=JOB,
    )


def _stage(case: Scenario, kinds: Kinds) -> Stage:
    world = World(case.seed, horizon=HORIZON_S)
    world.crash_at, world.site_crash_at = set(case.crashes), set(case.site_crashes)
    world.crash_in = set(case.crashes_in)
    names = [site.name for site in case.plan.sites]
    keys = {name: _private(case.seed, name) for name in ("coordinator", *names)}
    loaded = {name: Ed25519PrivateKey.from_private_bytes(raw) for name, raw in keys.items()}
    layout = Layout.of({"w": (case.size,)})
    opened = np.random.default_rng([case.seed, 1]).standard_normal(case.size).astype(np.float32)
    spec = _spec(layout)
    terms = Terms(
        plan=case.plan.digest,
        rounds=case.plan.rounds.count,
        layout=layout,
        codec=codec(case.plan.codec.name),
        opened_sha256=sha256_hex(opened.astype("<f4").tobytes()),
        coordinator=loaded["coordinator"].public_key(),
        seed=case.seed,
        fresh_noise=case.fresh_noise,
    )
    lies, talk = dict(case.liars), dict(case.talkers)
    sites = {
        name: kinds.site(
            world,
            terms,
            name=name,
            key=loaded[name],
            spec=spec_digest(spec),
            lie=_lie(lies[name]) if name in lies else None,
            talk=talk.get(name, ""),
        )
        for name in names
    }
    members = {
        site.name: Member(
            public_key=loaded[site.name].public_key(),
            spec=spec,
            public_records=site.public_records,
            weight=site.fold_weight,
        )
        for site in case.plan.sites
    }
    disk = SimDisk(world, lies=case.disk_lies, rots=case.disk_rots)
    stage = Stage(
        case=case,
        world=world,
        disk=disk,
        post=SimPost(world, case, sites),
        sites=sites,
        task=_task(case, world, layout=layout, members=members, kinds=kinds)
        | {"opened": opened, "key": loaded["coordinator"]},
        keys=keys,
        opened=opened,
        histories=[],
        ends=[],
    )
    _schedule(stage)
    return stage


def _task(
    case: Scenario, world: World, *, layout: Layout, members: dict[str, Member], kinds: Kinds
) -> dict[str, Any]:
    """Return the fields of the drive's task, all but the store."""

    def heard(kind: str, **fields: Any) -> None:
        world.note(kind, **fields)
        world.act(f"event {kind}")

    return {
        "plan": case.plan,
        "layout": layout,
        "members": members,
        "strategy": strategy_for(case.plan),
        "admission": kinds.admission(
            layout=layout,
            codec=codec(case.plan.codec.name),
            members=members,
            learning_rate=case.plan.rounds.local_learning_rate,
        ),
        "on_event": heard,
        "poll_s": 0.5,
        "clock": SimClock(world),
        "nonce": lambda: f"{world.rng.getrandbits(128):032x}",
    }


def _schedule(stage: Stage) -> None:
    """Let everything that has a time of its own happen at it."""
    world, case = stage.world, stage.case

    def later(when: float, fault: str, what: Any) -> None:
        def happen() -> None:
            world.injected[fault] += 1
            what()

        world.at(when, happen)

    for start, end in case.disk_full:
        later(start, "full disk", lambda: setattr(stage.disk, "full", True))
        world.at(end, lambda: setattr(stage.disk, "full", False))
    for name, start, end in case.site_full:
        world.at(start, lambda name=name: setattr(stage.sites[name], "full", True))
        world.at(end, lambda name=name: setattr(stage.sites[name], "full", False))
    for when, jump in case.clock_jumps:
        later(when, "clock jump", lambda jump=jump: setattr(world, "wall_offset", jump))
        world.at(when + DEADLINE_S, lambda: setattr(world, "wall_offset", 0.0))
    for name, skew in case.skews:
        stage.sites[name].skew_s = skew


def _lie(name: str) -> Any:
    return replay if name == "replay" else SEALED_LIES[name][0]


def _private(seed: int, name: str) -> bytes:
    return bytes.fromhex(sha256_hex(f"{seed}|{name}".encode()).partition(":")[2])


def _spec(layout: Layout) -> MechanismSpec:
    return MechanismSpec(
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
        trainable_digest=layout.digest,
    )

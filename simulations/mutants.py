"""Broken builds, one bug each, in the code that really runs: what the audit must catch.

Every mutant replaces one function where the product uses it, for as long as its context lasts,
in this process. Nothing here is imported by a run.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from itertools import count as counter
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from ..client import train as training
from ..client.phases import Phase
from ..client.site import Site
from ..core.errors import Refused
from ..core.layout import Layout, Vector
from ..core.mechanism import MechanismSpec
from ..core.messages import Sealed
from ..core.plan import ModelRef, Plan, Privacy, Rounds, Simulation, SiteRef, StrategyConfig
from ..data.site_data import SiteData
from ..privacy import step as stepping
from ..privacy.clipping import Clipper
from ..privacy.ledger import Ledger
from ..privacy.noise import Floats, NoiseStream, SeededNoise
from .audit import audit_run
from .short_run import short_run

Mutant = Callable[[], AbstractContextManager[None]]
"""Opens a context in which the build is broken."""

_ENDLESS = 1e30  # a clip norm that clips nothing
_FREE = 3  # the round that no ledger is told of

FEATURES, CLASSES = 63, 10
"""Of the tiny linear model of the grid: d = 640, so that one site's 16 steps have 10,240."""


def audited(folder: Path, *, seed: int, mutant: str | None = None) -> dict[str, Any]:
    """Return the audit of a short run of the named broken build (None: of the correct one)."""
    plan = short_plan(seed)
    with MUTANTS[mutant]() if mutant else nullcontext():
        short_run(plan, short_records(plan, seed), folder)
        return audit_run(folder)


def short_plan(seed: int) -> Plan:
    """Return a plan of three sites, 8 rounds of 2 steps, a linear model with d = 640."""
    names = [f"f{number}" for number in range(FEATURES)]
    return Plan(
        consortium="mutants",
        sites=tuple(SiteRef(name=f"s{number}", public_records=80) for number in range(3)),
        model=ModelRef(
            name="tabular:linear",
            task="classification",
            classes=tuple(f"c{number}" for number in range(CLASSES)),
            bounds=dict.fromkeys(names, (-1.0, 1.0)),
        ),
        rounds=Rounds(count=8, local_steps=2),
        strategy=StrategyConfig(iterate_average=0.0),
        privacy=Privacy(epsilon=3.0, delta=1e-3, sampling_rate=0.3),
        simulation=Simulation(dataset="sklearn:digits", seed=seed, baselines=False),
    )


def short_records(plan: Plan, seed: int) -> dict[str, SiteData]:
    """Return 60 or so random records per site; another number at each."""
    rng = np.random.default_rng([0x5407, seed])
    found: dict[str, SiteData] = {}
    for number, site in enumerate(plan.sites):
        x = rng.uniform(-1, 1, (60 + number, FEATURES)).astype(np.float32)
        y = rng.integers(0, CLASSES, len(x)).astype(np.int64)
        found[site.name] = SiteData(
            asset=f"mutants-{site.name}", train_x=x, train_y=y, test_x=x[:0], test_y=y[:0]
        )
    return found


@contextmanager
def _patched(owner: Any, name: str, value: Any) -> Generator[None]:
    original = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


def _noise_of(law: Callable[[Floats], Floats]) -> Mutant:
    """The noise z (d,) is another one."""
    normal = NoiseStream.normal

    def broken(self: NoiseStream, count: int) -> Floats:
        return law(normal(self, count))

    return lambda: _patched(NoiseStream, "normal", broken)


def _noise_times(factor: float) -> Mutant:
    """The noise is too small, or not there."""
    return _noise_of(lambda z: z * factor)


def _noise_at(noised: Callable[[int], NDArray[np.bool_]], *, rescaled: bool = True) -> Mutant:
    """Some coordinates have no noise; if ``rescaled`` the others have more, as much in all."""

    def law(z: Floats) -> Floats:
        chosen = noised(len(z))
        return z * chosen * (np.sqrt(1 / chosen.mean()) if rescaled else 1.0)

    return _noise_of(law)


def _uniform_of(z: Floats) -> Floats:
    """Return uniform noise of variance 1, one for each normal."""
    return (ndtr(z) - 0.5) * np.sqrt(12)


class _Quiet(NoiseStream):
    """A stream whose noise is times ``factor``; its uniforms are the real ones."""

    def __init__(self, stream: NoiseStream, factor: float) -> None:
        self._stream, self._factor = stream, factor
        self.reproducible = stream.reproducible

    def uniform(self, count: int) -> Floats:
        return self._stream.uniform(count)

    def normal(self, count: int) -> Floats:
        return self._stream.normal(count) * self._factor


def _streams(change: Callable[[str, int, int], tuple[str, int, int]], quiet: bool) -> Mutant:
    """Streams are shared between sites or steps; with ``quiet`` later steps have no noise."""
    stream = SeededNoise.stream

    def broken(
        self: SeededNoise, *, site: str, round: int, step: int, attempt: int = 1
    ) -> NoiseStream:
        name, number, place = change(site, round, step)
        found = stream(self, site=name, round=number, step=place, attempt=attempt)
        return _Quiet(found, 0.0) if quiet and step > 0 else found

    return lambda: _patched(SeededNoise, "stream", broken)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    """What a clipper was asked, and the layout of the answer."""

    x: Tensor
    y: Tensor
    clip_norm: float
    units: NDArray[np.intp] | None
    layout: Layout


Bend = Callable[[Clipper, _Call], Floats]


class _Bent:
    """A clipper whose sum is another one."""

    def __init__(self, clipper: Clipper, layout: Layout, bend: Bend) -> None:
        self._clipper, self._layout, self._bend = clipper, layout, bend

    def clipped_sum(
        self, x: Tensor, y: Tensor, clip_norm: float, *, units: NDArray[np.intp] | None = None
    ) -> Floats:
        call = _Call(x=x, y=y, clip_norm=clip_norm, units=units, layout=self._layout)
        return self._bend(self._clipper, call)

    def per_unit_norms(
        self, x: Tensor, y: Tensor, *, units: NDArray[np.intp] | None = None
    ) -> Floats:
        return self._clipper.per_unit_norms(x, y, units=units)


def _clipper(bend: Bend) -> Mutant:
    """The trainer's clipper does something else."""
    init = training.Trainer.__init__

    def broken(self: training.Trainer, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        of, layout = self._phases.of, self.layout

        def bent(round: int) -> Phase:
            phase = of(round)
            return replace(phase, clipper=_Bent(phase.clipper, layout, bend))

        self._phases.of = bent

    return lambda: _patched(training.Trainer, "__init__", broken)


def _clip_at(factor: float) -> Bend:
    return lambda clipper, call: clipper.clipped_sum(
        call.x, call.y, call.clip_norm * factor, units=call.units
    )


def _per_tensor(clipper: Clipper, call: _Call) -> Floats:
    """Each tensor's part of a unit's gradient is clipped to C, so the whole may exceed it."""
    owners = np.arange(len(call.y)) if call.units is None else call.units
    layout, total = call.layout, np.zeros(call.layout.size)
    for owner in np.unique(owners):
        own = owners == owner
        together = np.zeros(int(own.sum()), dtype=np.intp) if call.units is not None else None
        gradient = clipper.clipped_sum(call.x[own], call.y[own], _ENDLESS, units=together)
        for start, stop in zip(layout.offsets, (*layout.offsets[1:], layout.size), strict=True):
            part = gradient[start:stop]
            norm = max(float(np.linalg.norm(part)), 1e-30)
            total[start:stop] += part * min(1.0, call.clip_norm / norm)
    return total


def _step(change: Callable[..., Floats]) -> Mutant:
    """The step as the trainer calls it does something else."""
    return lambda: _patched(training, "private_gradient", change)


def _noise_of_a_mean(
    spec: MechanismSpec, clipper: Clipper, x: Any, y: Any, stream: NoiseStream, **rest: Any
) -> Floats:
    """sigma C / normaliser on the sum."""
    small = _Quiet(stream, 1 / spec.normaliser)
    return stepping.private_gradient(spec, clipper, x, y, small, **rest)


def _mean_before_noise(
    spec: MechanismSpec, clipper: Clipper, x: Any, y: Any, stream: NoiseStream, **rest: Any
) -> Floats:
    """The mean is taken first, and sigma C added to it."""

    def mean(clipper: Clipper, call: _Call) -> Floats:
        return _clip_at(1.0)(clipper, call) / spec.normaliser

    bent = _Bent(clipper, Layout.of({}), mean)
    return stepping.private_gradient(spec, bent, x, y, stream, **rest) * spec.normaliser


def _divisor_of_data(
    spec: MechanismSpec, clipper: Clipper, x: Any, y: Any, stream: NoiseStream, **rest: Any
) -> Floats:
    """The divisor is the expected batch of the site's own records."""
    gradient = stepping.private_gradient(spec, clipper, x, y, stream, **rest)
    return gradient * spec.normaliser / max(1.0, spec.sampling_rate * len(x))


def _wrong_rate() -> AbstractContextManager[None]:
    sample = stepping.sample

    def broken(spec: MechanismSpec, stream: NoiseStream, count: int) -> NDArray[np.intp]:
        rate = min(1.0, 1.5 * spec.sampling_rate)
        return sample(replace(spec, sampling_rate=rate), stream, count)

    return _patched(stepping, "sample", broken)


def _shuffled() -> AbstractContextManager[None]:
    """A data loader: an order per epoch, batches of one size, dropping the last."""
    orders: dict[int, NDArray[np.intp]] = {}

    def broken(spec: MechanismSpec, stream: NoiseStream, count: int) -> NDArray[np.intp]:
        size = min(count, round(spec.sampling_rate * count))
        left = orders.get(count, np.zeros(0, dtype=np.intp))
        if len(left) < size:
            left = np.argsort(stream.uniform(count))
        orders[count] = left[size:]
        return np.sort(left[:size])

    return _patched(stepping, "sample", broken)


@contextmanager
def _buffers() -> Generator[None]:
    """The model's buffers, as they moved, travel with the update."""
    names = ("__init__", "train", "open_vector")
    init, train, opened = (training.Trainer.__dict__[name] for name in names)
    at_first: dict[int, Vector] = {}

    def extra(trainer: training.Trainer) -> Vector:
        values = [value.detach().reshape(-1).numpy() for value in trainer._model.buffers()]
        return np.concatenate(values).astype(np.float32)

    def broken_init(self: training.Trainer, *args: Any, **options: Any) -> None:
        init(self, *args, **options)
        own = dict(zip(self.layout.names, self.layout.shapes, strict=True))
        held = {name: tuple(value.shape) for name, value in self._model.named_buffers()}
        self.layout = Layout.of(own | held)
        at_first[id(self)] = extra(self)

    def broken_train(self: training.Trainer, base: Vector, *args: Any, **options: Any) -> Vector:
        whole, sent = self.layout, extra(self) - at_first[id(self)]
        own = len(base) - len(sent) if len(base) == whole.size else len(base)
        self.layout = Layout.of(dict(zip(self._names, whole.shapes, strict=False)))
        try:
            update = train(self, base[:own], *args, **options)
        finally:
            self.layout = whole
        return np.concatenate([update, sent])

    broken_opened = property(lambda self: np.concatenate([opened.__get__(self), extra(self)]))
    with (
        _patched(training.Trainer, "__init__", broken_init),
        _patched(training.Trainer, "train", broken_train),
        _patched(training.Trainer, "open_vector", broken_opened),
    ):
        yield


def _answered_twice(kept: int) -> Mutant:
    """A site draws anew for a repeated question; reply number ``kept`` of its two is used."""
    train, commit, stream = Site.train, Ledger.commit, SeededNoise.stream

    def again(self: Site, request: Sealed) -> Sealed:
        return [train(self, request), train(self, request)][kept]

    def unmoved(self: Ledger, **values: Any) -> None:
        with suppress(Refused):
            commit(self, **values)

    @contextmanager
    def opened() -> Generator[None]:
        draws = counter()

        def fresh(
            self: SeededNoise, *, site: str, round: int, step: int, attempt: int = 1
        ) -> NoiseStream:
            name = f"{site} {next(draws)}"
            return stream(self, site=name, round=round, step=step, attempt=attempt)

        with (
            _patched(Site, "train", again),
            _patched(Site, "_stored", lambda *_: None),
            _patched(Ledger, "commit", unmoved),
            _patched(SeededNoise, "stream", fresh),
        ):
            yield

    return opened


@contextmanager
def _unreserved() -> Generator[None]:
    """One round's update leaves without a row in the ledger."""
    reserve, commit = Ledger.reserve, Ledger.commit

    def charged(self: Ledger, **values: Any) -> bool:
        return values["round"] != _FREE and reserve(self, **values)

    def committed(self: Ledger, **values: Any) -> None:
        if values["round"] != _FREE:
            commit(self, **values)

    with _patched(Ledger, "reserve", charged), _patched(Ledger, "commit", committed):
        yield


MUTANTS: Mapping[str, Mutant] = MappingProxyType(
    {
        "noise omitted": _noise_times(0.0),
        "noise halved": _noise_times(0.5),
        "noise x 0.9": _noise_times(0.9),
        "Rademacher noise": _noise_of(np.sign),
        "uniform noise": _noise_of(_uniform_of),
        "half without noise": _noise_at(lambda d: np.arange(d) % 2 == 0),
        "first tenth without noise": _noise_at(lambda d: np.arange(d) >= d // 10),
        "one tensor without noise": _noise_at(lambda d: np.arange(d) < d - CLASSES, rescaled=False),
        "clipping skipped": _clipper(_clip_at(_ENDLESS)),
        "clipping doubled": _clipper(_clip_at(2.0)),
        "clipping per tensor": _clipper(_per_tensor),
        "noise of a mean on a sum": _step(_noise_of_a_mean),
        "mean before noise": _step(_mean_before_noise),
        "divisor from the data": _step(_divisor_of_data),
        "noise once per round": _streams(lambda site, round, step: (site, round, step), True),
        "one noise for a round": _streams(lambda site, round, step: (site, round, 0), False),
        "same seed across sites": _streams(lambda site, round, step: ("", round, step), False),
        "shuffled sampler": _shuffled,
        "sampling rate x 1.5": _wrong_rate,
        "buffers released": _buffers,
        "answered twice": _answered_twice(1),
        "answered twice, first kept": _answered_twice(0),
        "update without a reserve": _unreserved,
    }
)
"""Every broken build by name."""

"""The build under audit: canary inputs through its own trainer, and what its runs released."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn

from ..client.train import Trainer
from ..core.codec import codec, codec_names
from ..core.digest import sha256_hex
from ..core.layout import Layout, Vector
from ..core.mechanism import MechanismSpec
from ..core.messages import Update
from ..core.plan import Plan
from ..data.site_data import SiteData
from ..models import registry
from ..models.adapters import write_vector
from ..models.fitted import build_for, layouts
from ..models.tasks import task
from ..privacy.conformance import Finding, checked, unexercised
from ..privacy.conformance_insertion import (
    SENSITIVITY,
    Draw,
    Inputs,
    Labels,
    Oracle,
    find_canaries,
    insertion_findings,
    without_dropout,
)
from ..privacy.conformance_records import Attempt, Key
from ..privacy.noise import Floats, NoiseSource, SeededNoise
from ..server.models_out import VECTOR_FILE, WHOLE_FILE

UPDATES, MODEL, FROZEN = "released updates", "released model", "frozen part"
COMMITTED = "released is committed"
STREAMS, BUILD = "noise streams", "this build"

_STREAMS = 4096


class _Recorder:
    """Keeps the last step's noisy sum."""

    def __init__(self) -> None:
        self.noisy: Floats = np.zeros(0)

    def observe(
        self,
        spec: MechanismSpec,
        *,
        step: int,
        units: int,
        batch: NDArray[np.intp],
        clean: Floats,
        noisy: Floats,
    ) -> None:
        """Take in one step."""
        del spec, step, units, batch, clean
        self.noisy = np.array(noisy)


class TrainerStep:
    """One step of the site's own trainer with every record in and no noise."""

    def __init__(self, plan: Plan, spec: MechanismSpec, base: Vector) -> None:
        # one copy of each canary, and every coordinate: what is inserted is what is clipped
        plain = replace(plan, training=None)
        self._trainer = Trainer(without_dropout(build_for(plan)), plain)
        self._spec, self._base = spec, base
        self._learning_rate = plan.rounds.local_learning_rate

    def __call__(
        self, x: Inputs, y: Labels, owners: NDArray[np.intp], clip_norm: float
    ) -> tuple[Floats, Floats]:
        """Return the sum of the clipped units (d,) and the released mean times the normaliser."""
        spec = replace(
            self._spec,
            clip_norm=clip_norm,
            noise_multiplier=0.0,
            sampler="poisson",
            sampling_rate=1.0,
            batch_cap=0,
            steps=1,
        )
        data = SiteData(
            asset="canaries", train_x=x, train_y=y, test_x=x[:0], test_y=y[:0], train_units=owners
        )
        seen = _Recorder()
        update = self._trainer.train(
            self._base, data, spec, SeededNoise(0), site="audit", round=1, observer=seen
        )
        return seen.noisy, -update.astype(np.float64) * spec.normaliser / self._learning_rate


def canary_findings(plan: Plan, spec: MechanismSpec, base: Vector, *, seed: int) -> list[Finding]:
    """Return what canary inputs show of clipping and divisor, at the model ``base`` (d + e,)."""
    draw = inputs_of(plan)
    if draw is None:
        return [unexercised(SENSITIVITY, BUILD, "this model's inputs cannot be drawn at random")]
    model = build_for(plan)
    layout, _, whole = layouts(model, plan)
    write_vector(model, whole.names, base)
    oracle = Oracle(model, layout.names, task(plan.model).loss)
    rng = np.random.default_rng([0xCA9A, seed])
    canaries = find_canaries(oracle, draw, rng, classes=len(plan.model.classes), unit=spec.unit)
    step = TrainerStep(plan, spec, base)
    return insertion_findings(BUILD, step, oracle, canaries, clip_norm=spec.clip_norm)


def stream_finding(plan: Plan, source: NoiseSource) -> Finding:
    """Return whether no two steps of the plan, at any sites, draw from one stream.

    Up to ``_STREAMS`` of them are opened and their first uniforms compared: equal ones have
    probability 2^-53 each.
    """
    names = [site.name for site in plan.sites]
    rounds, steps = plan.rounds.count, plan.rounds.local_steps
    keys = [(n, r, s) for r in range(1, rounds + 1) for s in range(steps) for n in names]
    first = {
        source.stream(site=name, round=number, step=step).uniform(2).tobytes()
        for name, number, step in keys[:_STREAMS]
    }
    count = len(keys[:_STREAMS])
    text = f"{len(first)} of {count} streams distinct"
    return checked(STREAMS, BUILD, text, holds=len(first) == count)


def inputs_of(plan: Plan) -> Draw | None:
    """Return how random raw inputs of the plan's model are drawn; None for texts."""
    model = plan.model
    if registry.input_kind(model) == "text":
        return None
    shape = registry.input_shape(model)
    low, high = (np.array([pair[side] for pair in model.bounds.values()]) for side in (0, 1))
    sizes = [len(known) for known in model.categories.values()]

    def draw(rng: np.random.Generator, count: int) -> Inputs:
        scale = 10 ** rng.uniform(-1, 2, (count,) + (1,) * len(shape))
        x = rng.standard_normal((count, *shape)) * scale
        if model.bounds:
            numbers = slice(0, len(model.bounds))
            x[:, numbers] = low + (high - low) * (0.5 + x[:, numbers])
        for place, size in enumerate(sizes, len(model.bounds)):
            x[:, place] = rng.integers(0, size, count)
        return x.astype(np.float32)

    return draw


def declared_layout(model: nn.Module, plan: Plan) -> Layout:
    """Return the layout of what the plan declares trainable, and of nothing else."""
    return layouts(model, plan)[0]


def release_findings(plan: Plan, folder: Path) -> list[Finding]:
    """Return whether what left the sites, and the model, are exactly the declared tensors."""
    model = build_for(plan)
    layout, _, whole = layouts(model, plan)
    found = [_updates(site.name, folder, plan, layout) for site in plan.sites]
    if (folder / VECTOR_FILE).is_file():
        found.append(_model(folder / VECTOR_FILE, whole))
    if (folder / WHOLE_FILE).is_file():
        found.append(_frozen(folder / WHOLE_FILE, model, whole.names))
    return found


def _updates(name: str, folder: Path, plan: Plan, layout: Layout) -> Finding:
    """Header fields, layout and byte length of every update that the run kept."""
    paths = sorted((folder / "updates").glob(f"round-*/{name}.payload"))
    if not paths:
        return unexercised(UPDATES, name, "the run keeps no update of this site")
    right = sum(_is_declared(_header(path), path.stat().st_size, plan, layout) for path in paths)
    text = f"{right} of {len(paths)} hold the {layout.size:,} declared coordinates alone"
    return checked(UPDATES, name, text, holds=right == len(paths))


def committed_findings(
    folder: Path,
    sites: Mapping[str, Sequence[Attempt]],
    commits: Mapping[str, Mapping[Key, str]],
) -> list[Finding]:
    """Return whether every update that the run kept is the one that a ledger was charged for.

    ``commits`` are each ledger's digests by (job, round, attempt). A site's evidence of the
    newest try must be of these very bytes too.
    """
    paths: dict[str, list[Path]] = {name: [] for name in sites}
    for path in sorted((folder / "updates").rglob("*.payload")):
        paths.setdefault(path.stem, []).append(path)
    found: list[Finding] = []
    for name, own in paths.items():
        if not own:
            found.append(unexercised(COMMITTED, name, "the run keeps no update of this site"))
            continue
        made = {attempt.key: attempt.payloads for attempt in sites.get(name, ())}
        right = sum(_is_committed(path, commits.get(name, {}), made) for path in own)
        text = f"{right} of {len(own)} updates are what the ledger was charged for"
        found.append(checked(COMMITTED, name, text, holds=right == len(own)))
    return found


def _is_committed(
    path: Path, commits: Mapping[Key, str], made: Mapping[Key, Mapping[str, str]]
) -> bool:
    header, payload = _header(path), path.read_bytes()
    try:
        key = (str(header["job"]), int(header["round"]), int(header["attempt"]))
    except (KeyError, TypeError, ValueError):
        return False
    signed = path.with_suffix(".header").read_bytes().rpartition(b"\n")[0]
    own = made.get(key) or {}
    return (
        commits.get(key) == sha256_hex(signed, payload)
        and header.get("site") == path.stem
        and path.parent.name == f"round-{key[1]:06d}"
        and (not own or own.get(str(header.get("codec"))) == sha256_hex(payload))
    )


def _header(payload: Path) -> Mapping[str, Any]:
    try:
        return json.loads(payload.with_suffix(".header").read_bytes().split(b"\n")[0])
    except (OSError, ValueError):
        return {}


def _is_declared(header: Mapping[str, Any], size: int, plan: Plan, layout: Layout) -> bool:
    names = {item.name for item in fields(Update)} | {"payload_sha256"}
    tells = bool(header.get("metrics")) and plan.evaluation.origin != "public"
    return (
        set(header) <= names
        and header.get("layout") == layout.digest
        and header.get("codec") in codec_names()
        and size == codec(header["codec"]).size_bytes(layout.size)
        and not tells
    )


def _model(path: Path, layout: Layout) -> Finding:
    shapes: dict[str, tuple[int, ...]] = {}
    with safe_open(path, framework="numpy") as stream:
        for name in stream.keys():  # noqa: SIM118 - not a mapping
            shapes[name] = tuple(stream.get_slice(name).get_shape())
    expected = dict(zip(layout.names, layout.shapes, strict=True))
    text = f"{len(shapes)} tensors, {len(expected)} declared"
    return checked(MODEL, "released", text, holds=shapes == expected)


def _frozen(path: Path, model: nn.Module, trained: Sequence[str]) -> Finding:
    """Buffers and frozen tensors of the whole model are the open model's, bit for bit."""
    opened = {
        name: value.detach().cpu().numpy()
        for name, value in model.state_dict().items()
        if name not in trained
    }
    if not opened:
        return unexercised(FROZEN, "released", "the whole model trains")
    with safe_open(path, framework="numpy") as stream:
        held = {name: stream.get_tensor(name) for name in stream.keys() if name not in trained}  # noqa: SIM118
    same = sum(name in held and np.array_equal(held[name], opened[name]) for name in opened)
    text = f"{same} of {len(opened)} frozen tensors and buffers are the open model's"
    return checked(FROZEN, "released", text, holds=set(held) == set(opened) and same == len(opened))

"""The public data sets and small models on which the training recipe is measured."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from collegium.core import plan as p
from collegium.core.plan_training import Training
from collegium.data.datasets import load
from collegium.data.site_data import SiteData
from collegium.data.split import dirichlet, holdout, iid

Arrays = tuple[NDArray[np.generic], NDArray[np.int64]]
SITES = ("north", "south", "east", "west")
TEST_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Case:
    """One data set with one model: ``plan`` holds the defaults from which variants differ."""

    name: str
    plan: p.Plan
    records: Callable[[], Arrays]
    model: Callable[[], nn.Module] | None = None
    alpha: float = 0.5
    owners: Callable[[], NDArray[np.intp]] | None = None


def split(case: Case, seed: int) -> tuple[dict[str, SiteData], Arrays]:
    """Return the sites' records and the common test part of one seed."""
    x, y = case.records()
    rng = np.random.default_rng([0x2EC1, seed])
    kept, test = holdout(y, TEST_SHARE, rng)
    capacities = [site.public_records for site in case.plan.sites]
    if case.owners is not None:
        own = case.owners()[kept]
        parts = [np.flatnonzero(own == place) for place in range(len(SITES))]
    elif case.alpha:
        parts = dirichlet(y[kept], capacities, case.alpha, rng)
    else:
        parts = iid(y[kept], capacities, rng)
    sites: dict[str, SiteData] = {}
    for name, part in zip(SITES, parts, strict=True):
        rows = kept[part]
        held = rows[:2]  # a site's own test part is not looked at here
        sites[name] = SiteData(
            asset=f"{case.name}/{name}", train_x=x[rows], train_y=y[rows],
            test_x=x[held], test_y=y[held],
        )  # fmt: skip
    return sites, (x[test], y[test])


def plan(
    model: p.ModelRef, *, records: int | tuple[int, ...], epsilon: float, delta: float,
    rate: float, rounds: int, server_lr: float, clip: float = 1.0, average: float = 0.5,
) -> p.Plan:  # fmt: skip
    """Return a plan of four sites, one noisy step a round."""
    each = records if isinstance(records, tuple) else (records,) * len(SITES)
    return p.Plan(
        consortium="recipes",
        sites=tuple(
            p.SiteRef(name=name, public_records=size)
            for name, size in zip(SITES, each, strict=True)
        ),
        model=model,
        rounds=p.Rounds(count=rounds),
        strategy=p.StrategyConfig(server_learning_rate=server_lr, iterate_average=average),
        codec=p.CodecConfig(name="float32"),
        privacy=p.Privacy(epsilon=epsilon, delta=delta, clip_norm=clip, sampling_rate=rate),
        training=Training(),
        simulation=p.Simulation(dataset="sklearn:digits", baselines=False),
    )


def _digits() -> Arrays:
    found = load("sklearn:digits")
    return found.x, found.y


def _digits_ref(trainable: str) -> p.ModelRef:
    return p.ModelRef(
        name="collegium:glyph-cnn", task="classification", trainable=trainable,
        classes=tuple(str(digit) for digit in range(10)),
    )  # fmt: skip


def _breast() -> Arrays:
    found = load("sklearn:breast_cancer")
    return found.x, found.y


def _table_ref(bounds: dict[str, tuple[float, float]], classes: tuple[str, ...]) -> p.ModelRef:
    return p.ModelRef(name="tabular:linear", task="classification", classes=classes, bounds=bounds)


def _breast_ref() -> p.ModelRef:
    found = load("sklearn:breast_cancer")
    # Round numbers that hold published ranges of the features; no record's value is used.
    tops = (
        30, 40, 200, 2500, 0.2, 0.4, 0.5, 0.25, 0.35, 0.1, 3, 5, 22, 550, 0.035, 0.15, 0.4, 0.06,
        0.08, 0.03, 40, 50, 260, 4300, 0.25, 1.1, 1.3, 0.3, 0.7, 0.22,
    )  # fmt: skip
    bounds = {name: (0.0, float(top)) for name, top in zip(found.features, tops, strict=True)}
    return _table_ref(bounds, found.classes)


def folder() -> Path | None:
    """Return where the real data lie: COLLEGIUM_DATA, or beside the checkout; None: nowhere."""
    named = os.environ.get("COLLEGIUM_DATA")
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    return path if path.is_dir() else None


_TAIWAN = {
    "LIMIT_BAL": (0, 500_000), "AGE": (20, 70),
    **{f"PAY_{n}": (-2, 4) for n in (0, 2, 3, 4, 5, 6)},
    **{f"BILL_AMT{n}": (0, 200_000) for n in range(1, 7)},
    **{f"PAY_AMT{n}": (0, 20_000) for n in range(1, 7)},
}  # fmt: skip


def _taiwan_rows() -> list[dict[str, str]]:
    path = (folder() or Path()) / "credit_default_taiwan" / "UCI_Credit_Card.csv"
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _taiwan() -> Arrays:
    rows = _taiwan_rows()
    x = np.array([[float(row[name]) for name in _TAIWAN] for row in rows], dtype=np.float32)
    return x, np.array([int(row["default.payment.next.month"]) for row in rows], dtype=np.int64)


def _taiwan_owners() -> NDArray[np.intp]:
    """Return the site of each row: education 1 (and 0), 2, 3, 4 and more."""
    found = [int(row["EDUCATION"]) for row in _taiwan_rows()]
    return np.array([min(max(number, 1), 4) - 1 for number in found], dtype=np.intp)


def _pneumonia(most: int | None) -> Arrays:
    path = (folder() or Path()) / "pneumoniamnist" / "pneumoniamnist_rebuilt.npz"
    with np.load(path) as held:
        x, y = held["train_images"], held["train_labels"].reshape(-1)
    return x[:most, ..., None], y[:most].astype(np.int64)


class SmallCNN(nn.Module):
    """28 x 28 grey images to two logits, from scratch: 2 convolutions with GroupNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 5, stride=2, padding=2), nn.GroupNorm(4, 16), nn.ReLU(),
            nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.GroupNorm(4, 32), nn.ReLU(),
            nn.AdaptiveAvgPool2d(4), nn.Flatten(),
        )  # fmt: skip
        self.head = nn.Linear(32 * 16, 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (batch, 28, 28, 1) of 0..255 to (batch, 2) logits."""
        return self.head(self.body(x.permute(0, 3, 1, 2) / 127.5 - 1.0))


def small_cnn() -> nn.Module:
    """Return the small CNN, the same one every time."""
    torch.manual_seed(0)
    return SmallCNN().eval()


def cases() -> dict[str, Case]:
    """Return the cases by name; those of real data where it is there."""
    found = [
        Case(
            name=f"digits-{trainable}",
            plan=plan(
                _digits_ref(trainable), records=700, epsilon=1.0, delta=1e-4, rate=0.3,
                rounds=60, server_lr=rate,
            ),
            records=_digits,
        )
        for trainable, rate in (("head", 4.0), ("bias", 0.5), ("all", 0.5))
    ]  # fmt: skip
    found.append(
        Case(
            name="breast-head",
            plan=plan(
                _breast_ref(), records=200, epsilon=1.0, delta=1e-3, rate=0.3, rounds=60,
                server_lr=2.0,
            ),
            records=_breast, alpha=0.0,
        )
    )  # fmt: skip
    if folder() is not None:
        found.append(
            Case(
                name="taiwan-head",
                plan=plan(
                    _table_ref(_TAIWAN, ("paid", "default")), records=(8200, 10800, 3900, 400),
                    epsilon=3.0, delta=1e-5, rate=0.05, rounds=60, server_lr=2.0,
                ),
                records=_taiwan, owners=_taiwan_owners,
            )
        )  # fmt: skip
        ref = p.ModelRef(
            name="collegium:glyph-cnn", task="classification", classes=("normal", "pneumonia"),
            trainable="all",
        )  # fmt: skip
        found += [
            Case(
                name=name,
                plan=plan(
                    ref, records=records, epsilon=8.0, delta=1e-5, rate=rate, rounds=rounds,
                    server_lr=4.0,
                ),
                records=partial(_pneumonia, most), model=small_cnn,
            )
            for name, most, records, rate, rounds in (
                ("pneumonia-all", None, 2400, 0.1, 60),
                ("pneumonia-few", 1200, 700, 0.2, 30),  # cheap enough for many copies
            )
        ]  # fmt: skip
    return {case.name: case for case in found}

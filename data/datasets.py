"""Real data sets that ship inside scikit-learn: nothing is downloaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..core.errors import InvalidInput
from .site_data import Labels, Records

NAMES = ("sklearn:digits", "sklearn:breast_cancer")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSet:
    """Raw values (n, ...) and class indices (n,) with the names of classes and features."""

    name: str
    x: Records
    y: Labels
    classes: tuple[str, ...]
    features: tuple[str, ...] = ()


def load(name: str) -> DataSet:
    """Return the named data set; raises ``InvalidInput`` for an unknown one."""
    match name:
        case "sklearn:digits":
            return _digits()
        case "sklearn:breast_cancer":
            return _breast_cancer()
        case _:
            raise InvalidInput(
                f"unknown data set '{name}'",
                why="the simulator brings its own data sets and downloads none",
                cure="use one of " + ", ".join(NAMES),
            )


def _digits() -> DataSet:
    """1,797 handwritten digits, 8 x 8 pixels of 0..16 (UCI, Alpaydin & Kaynak 1998, CC BY 4.0)."""
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    return DataSet(
        name="sklearn:digits",
        x=np.asarray(bunch.images, dtype=np.float32),
        y=np.asarray(bunch.target, dtype=np.int64),
        classes=tuple(str(digit) for digit in range(10)),
    )


def _breast_cancer() -> DataSet:
    """569 patients, 30 features of cell nuclei (UCI, Wolberg et al. 1993, CC BY 4.0)."""
    from sklearn.datasets import load_breast_cancer

    bunch: Any = load_breast_cancer()
    return DataSet(
        name="sklearn:breast_cancer",
        x=np.asarray(bunch.data, dtype=np.float32),
        y=np.asarray(bunch.target, dtype=np.int64),
        classes=tuple(str(name) for name in bunch.target_names),
        features=tuple(str(name) for name in bunch.feature_names),
    )

"""Labels that are arrays: as columns of cells for the common reading, or as masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput
from ..core.plan_model import ModelRef
from ..core.site_data_section import DataSection
from .cells import Column
from .reader_images import mask_codes


def label_cells(
    y: NDArray[Any],
    extra: Mapping[str, NDArray[Any]],
    model: ModelRef,
    section: DataSection,
    *,
    source: str,
) -> dict[str, Column]:
    """Return the columns that ``table_columns.label_columns`` names, from ``y`` (n, ...).

    Multilabel: y (n, classes); survival: y (n, 2) of time and event, or y (n,) and the array
    that [data] event names; otherwise y (n,) or (n, 1). Whole numbers are class indices unless
    [data.labels] renames them. Raises ``InvalidInput`` for another shape.
    """
    if model.task == "multilabel":
        if y.shape[1:] != (len(model.classes),):
            raise _shape(source, f"(records, {len(model.classes)}), one column per class")
        return {name: y[:, place] for place, name in enumerate(model.classes)}
    flat = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if model.task == "survival":
        event = section.event or "event"
        if y.shape[1:] == (2,):
            return {section.label: y[:, 0], event: y[:, 1]}
        if flat.ndim != 1 or event not in extra:
            raise _shape(source, "(records, 2) of time and event, or times beside an array event")
        return {section.label: flat, event: extra[event]}
    if flat.ndim != 1:
        raise _shape(source, "(records,)")
    if model.task == "regression" or not model.classes:
        return {section.label: flat}
    if flat.dtype.kind in "iu" and not section.labels:
        inside = ((flat >= 0) & (flat < len(model.classes))).all()
        if inside:  # indices, whatever the classes are called
            return {section.label: [model.classes[index] for index in flat.tolist()]}
    return {section.label: flat.tolist()}


def masks(
    y: NDArray[Any], model: ModelRef, section: DataSection, *, source: str
) -> NDArray[np.int64]:
    """Return masks (n, height, width) of class indices, 255 where nobody labelled.

    Raises ``InvalidInput`` for another shape, and for values that are no class.
    """
    if y.ndim == 4 and y.shape[3] == 1:
        y = y[:, :, :, 0]
    if y.dtype.kind not in "iub" or y.shape[1:] != model.image[:2]:
        raise _shape(source, f"whole numbers (records, {', '.join(map(str, model.image[:2]))})")
    codes = mask_codes(model.classes, section.labels)
    known = (y >= 0) & (y < len(codes))
    found = np.where(known, codes[np.where(known, y, 0).astype(np.int64)], -1)
    wrong = (found < 0).reshape(len(y), -1).any(axis=1)
    if wrong.any():
        raise InvalidInput(
            f"{source}: {int(wrong.sum())} of {len(y)} masks hold a value that is no class",
            why=f"values are 0 to {len(model.classes) - 1}, or 255 where nobody labelled",
            cure="map them in [data.labels], or correct the masks",
        )
    return found


def _shape(source: str, wanted: str) -> InvalidInput:
    return InvalidInput(
        f"{source}: the labels have another shape than the task asks for",
        why=f"they must be {wanted}",
        cure="save y in that shape",
    )

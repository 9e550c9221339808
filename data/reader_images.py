"""Pictures in folders, as raw pixels of the plan's shape, with class labels or masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput, Problem
from ..core.fields import shown
from ..core.plan import Plan
from ..core.site_data_section import DataSection
from .file_list import FileList, labelled_files, read_all
from .growing import SPILL_BYTES
from .identity import joined_ids
from .pixels import BadPicture, decoded_mask, identified, image_shape
from .problems import MOST, Faults
from .reader_labels import class_indices
from .reader_table import Table
from .site_data import IGNORED

SUFFIXES = (".png", ".jpg", ".jpeg")


def read_images(
    path: Path, plan: Plan, section: DataSection, *, spill_bytes: int = SPILL_BYTES
) -> Table:
    """Return uint8 pixels (n, height, width, channels), 0..255, and labels.

    For segmentation the labels are masks of the same file name (.png) in the folder that [data]
    label names, beside [data] path. Raises ``InvalidInput`` that names files, never pixels.
    """
    shape = image_shape(plan.model.image, "images")
    masked = plan.model.task == "segmentation"
    files = labelled_files(path, plan, section, suffixes=SUFFIXES, labels=not masked)
    y = _masks(path, files, plan, section, spill_bytes) if masked else files.y
    ids: list[bytes] = []

    def read(file: Path) -> NDArray[np.uint8]:
        pixels, own = identified(file.read_bytes(), shape)
        ids.append(own)
        return pixels

    x = read_all(
        files,
        read,
        source=path.name,
        shape=shape,
        dtype=np.uint8,
        spill_bytes=spill_bytes,
    )
    return Table(x=x, y=y, units=files.units, ids=joined_ids(ids))


def _masks(
    path: Path, files: FileList, plan: Plan, section: DataSection, spill_bytes: int
) -> NDArray[Any]:
    folder = (path.parent if path.is_file() else path).parent / section.label
    if not folder.is_dir():
        raise InvalidInput(
            f"there is no folder of masks {shown(section.label)} beside {shown(path.name)}",
            why="[data] label names it",
            cure="correct [data] label",
        )
    masks = tuple(folder / f"{file.stem}.png" for file in files.paths)
    if len(set(masks)) < len(masks):
        raise InvalidInput(
            f"{len(masks) - len(set(masks))} of {len(masks)} pictures have the mask of another one",
            why="each picture has a mask of its own name, and some names are alike",
            cure="give each picture a name of its own",
        )
    masked = replace(files, paths=masks)
    absent = [index for index, mask in enumerate(masks) if not mask.is_file()]
    if absent:
        raise InvalidInput(
            section.label,
            [
                Problem(
                    where=", ".join(masked.called(index) for index in absent[:MOST]),
                    what=f"{len(absent)} of {len(masks)} masks are not there",
                    why="Each picture has a mask of its own name, as .png",
                    cure="export them, or leave those pictures out",
                )
            ],
        )
    codes = mask_codes(plan.model.classes, section.labels)
    height, width, _ = image_shape(plan.model.image, "images")
    return read_all(
        masked,
        lambda file: _mask(file, codes, (height, width)),
        source=section.label,
        shape=(height, width),
        dtype=np.int64,
        spill_bytes=spill_bytes,
    )


def mask_codes(classes: tuple[str, ...], renamed: Mapping[str, str]) -> NDArray[np.int64]:
    """Return (65536,) the class index of each value in a mask: -1 none, 255 not labelled.

    Without [data.labels] a value is the index itself. Raises ``InvalidInput`` for a value that
    is renamed to no class.
    """
    codes = np.full(65_536, -1, dtype=np.int64)
    codes[: len(classes)] = np.arange(len(classes))
    codes[IGNORED] = IGNORED
    if not renamed:
        return codes
    codes[: len(classes)] = -1
    for value, name in renamed.items():
        faults = Faults()
        index = class_indices([name], classes, faults)
        if faults or not value.isascii() or not value.isdigit() or int(value) >= len(codes):
            raise InvalidInput(
                "[data.labels] does not fit masks",
                why="it says which class a pixel's value is",
                cure='write "value" = "class of the plan", like "255" = "lesion"',
            )
        codes[int(value)] = index[0]
    return codes


def _mask(file: Path, codes: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.int64]:
    values = decoded_mask(file.read_bytes(), size)
    known = (values >= 0) & (values < len(codes))
    found = np.where(known, codes[np.where(known, values, 0)], -1)
    if (found < 0).any():
        raise BadPicture("a pixel is no class of the plan; [data.labels] may map its value")
    return found

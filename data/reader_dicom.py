"""A folder of DICOM images, windowed to 0..255; labels from a table beside them or from a tag."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InvalidInput, NotAvailable
from ..core.plan import Plan
from ..core.site_data_section import DataSection
from .cells import plain
from .file_list import TABLE, FileList, files_in, labelled_files, read_all
from .growing import SPILL_BYTES
from .identity import joined_ids, pixel_id
from .pixels import MOST_PIXELS, BadPicture, fitted, image_shape
from .problems import MOST, Faults
from .reader_labels import class_indices
from .reader_table import Table

SUFFIXES = (".dcm", ".dicom")


def read_dicom(
    path: Path, plan: Plan, section: DataSection, *, spill_bytes: int = SPILL_BYTES
) -> Table:
    """Return uint8 pixels (n, height, width, channels), 0..255, and class labels.

    With labels.csv (file, the label's column [, the unit's]) labels and units come from there;
    otherwise [data] label and unit are keywords of tags, like "PatientID", and a unit that the
    table does not have is such a keyword, too. Raises ``NotAvailable`` without pydicom, and
    ``InvalidInput`` that names files, never a tag's value.
    """
    _require_pydicom()
    if plan.model.task != "classification":
        raise InvalidInput(
            f"reader dicom gives no labels for the task {plan.model.task}",
            cure="convert the images to PNG, and use reader images",
        )
    shape = image_shape(plan.model.image, "dicom")
    files = _listed(path, plan, section)
    ids: list[bytes] = []

    def read(file: Path) -> NDArray[np.uint8]:
        pixels = windowed(_dataset(file), shape[2])
        ids.append(pixel_id(pixels))
        return fitted(pixels, shape)

    x = read_all(
        files,
        read,
        source=path.name,
        shape=shape,
        dtype=np.uint8,
        spill_bytes=spill_bytes,
    )
    return Table(x=x, y=files.y, units=files.units, ids=joined_ids(ids))


def _listed(path: Path, plan: Plan, section: DataSection) -> FileList:
    if path.is_file() or (path / TABLE).is_file():
        by_tag = section.unit is not None and section.unit[:1].isupper()
        in_table = replace(section, unit=None) if by_tag else section
        files = labelled_files(path, plan, in_table, suffixes=SUFFIXES)
        units = _tags(files.paths, section.unit) if by_tag and section.unit else files.units
        return replace(files, units=units)
    paths = files_in(path, SUFFIXES)
    faults = Faults()
    labels = _tags(paths, section.label).tolist()
    y = class_indices(labels, plan.model.classes, faults, renamed=section.labels, first_row=1)
    if faults:
        raise InvalidInput(f"{path.name}, tag {section.label}, files by name", faults.problems())
    units = None if section.unit is None else _tags(paths, section.unit)
    return FileList(paths=paths, y=y, units=units)


def _tags(paths: Sequence[Path], keyword: str) -> NDArray[Any]:
    found: list[str] = []
    absent: list[str] = []
    for path in paths:
        value = _tag(path, keyword)
        found.append(value)
        if not value:
            absent.append(path.name)
    if absent:
        raise InvalidInput(
            f"{len(absent)} of {len(paths)} files have no tag {keyword}",
            why=f"the first of them: {', '.join(absent[:MOST])}",
            cure=f"write {TABLE} beside the files, or name another tag",
        )
    return np.array(found)


def _tag(path: Path, keyword: str) -> str:
    """Return a tag's value as text, '' where there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's words quote what it found
            value = _dataset(path, pixels=False).get(keyword)
            return "" if value is None else plain(str(value))
    except Exception:  # damage can raise anything in a decoder
        return ""


def windowed(dataset: Any, channels: int) -> NDArray[np.uint8]:
    """Return a DICOM image as uint8 (height, width[, 3]): its first window as 0..255.

    DICOM PS3.3 C.11.1 (modality) and C.11.2.1.2 (window); without a window the whole range that
    the stored bits can hold. MONOCHROME1 is inverted. Raises ``BadPicture``.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's words quote what it found
            return _windowed(dataset, channels)
    except BadPicture:
        raise
    except Exception:  # damage can raise anything in a decoder
        raise BadPicture(
            "its pixels cannot be decoded (damaged, or compressed in a way that needs a plug-in "
            "of pydicom)"
        ) from None


def _windowed(dataset: Any, channels: int) -> NDArray[np.uint8]:
    from pydicom.pixels.processing import apply_modality_lut

    if int(dataset.Rows) * int(dataset.Columns) > MOST_PIXELS:
        raise BadPicture("it has too many pixels")
    if int(dataset.get("NumberOfFrames", 1) or 1) != 1:
        raise BadPicture("it has several frames")
    raw = dataset.pixel_array
    if raw.ndim == 3:
        if channels != 3 or raw.dtype != np.uint8:
            raise BadPicture(f"it is in colours, the plan's images have {channels} channels")
        return raw
    values = np.asarray(apply_modality_lut(raw, dataset), dtype=np.float64)
    share = _share(values, dataset)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        share = 1 - share
    return np.round(255 * np.clip(share, 0, 1)).astype(np.uint8)


def _share(values: NDArray[np.float64], dataset: Any) -> NDArray[np.float64]:
    """Return where each value lies in the window: 0 at its lower end, 1 at its upper."""
    from pydicom.pixels.processing import apply_modality_lut

    center, width = (_first(dataset.get(name)) for name in ("WindowCenter", "WindowWidth"))
    function = str(dataset.get("VOILUTFunction", "LINEAR") or "LINEAR")
    if center is None or width is None or width < 1:
        bits, signed = int(dataset.BitsStored), int(dataset.PixelRepresentation)
        ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
        low, high = np.sort(np.asarray(apply_modality_lut(ends, dataset), dtype=np.float64))
        return (values - low) / max(high - low, 1e-12)
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return (values - center) / width + 0.5
    return (values - (center - 0.5)) / max(width - 1, 1e-12) + 0.5


def _first(value: Any) -> float | None:
    """Return the first number of a tag that may hold one, several or none."""
    if value is None or value == "":
        return None
    if isinstance(value, (str, int, float)):
        return float(value)
    several = list(value)
    return float(several[0]) if several else None


def _dataset(path: Path, *, pixels: bool = True) -> Any:
    import pydicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's words quote what it found
            return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except OSError:
        raise
    except Exception:  # damage can raise anything in a decoder
        raise BadPicture("it is no DICOM file") from None


def _require_pydicom() -> None:
    try:
        import pydicom  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise NotAvailable(
            "DICOM files cannot be read here",
            why="pydicom is not installed",
            cure="pip install 'collegium[dicom]', or convert the images to PNG",
        ) from None

"""Which sets touched the model after training, by their use; each may be shown to everyone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..data.public import PublicSet


def about(found: PublicSet) -> dict[str, Any]:
    """Return name, origin, size and digest of a set: what may be told of it."""
    return {
        "name": found.name,
        "origin": found.origin,
        "records": len(found),
        "sha256": found.digest,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The sets that touched the model after training; ``PublicSet`` refuses private ones.

    ``transfer`` taught the student (None: the global model itself ships), ``calibration`` sets
    the ranges of static int8 and counts as used where some file is ``calibrated``, ``selftest``
    gives the device's vectors, ``parity`` is what all figures quote. None where a step did not
    happen:
    ``temperature`` (fitted on it), ``early_stopping`` (stopped training), ``field`` (on which
    the bundle in the field was compared).
    """

    transfer: PublicSet | None
    calibration: PublicSet
    parity: PublicSet
    selftest: PublicSet
    calibrated: bool = True
    temperature: PublicSet | None = None
    early_stopping: PublicSet | None = None
    field: PublicSet | None = None

    def uses(self) -> dict[str, PublicSet | None]:
        """Return every use, with its set or None."""
        return {
            "transfer": self.transfer,
            "calibration": self.calibration if self.calibrated else None,
            "temperature": self.temperature,
            "early_stopping": self.early_stopping,
            "selftest": self.selftest,
            "parity": self.parity,
            "field_comparison": self.field,
        }

    def origins(self) -> dict[str, dict[str, Any]]:
        """Return name, origin, size and digest of each set that was used, by its use."""
        return {use: about(found) for use, found in self.uses().items() if found is not None}

    def unused(self) -> list[str]:
        """Return the uses for which no set was taken."""
        return [use for use, found in self.uses().items() if found is None]

    @property
    def data_free(self) -> bool:
        """Return whether the student learned from records that were made up without data."""
        return self.transfer is not None and self.transfer.data_free

"""Where a provisioned federation's files lie, and what may lie there before."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ..core.agreement import Roster, read_envelope
from ..core.agreement_files import ROSTER_ENVELOPE
from ..core.errors import OutputExists
from .out_folder import require_nameable


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Where a provisioned federation's files lie below ``out``."""

    out: Path

    @property
    def coordinator(self) -> Path:
        """Return the coordinator's own folder (0700): ``keys/``, ``certs/`` and ``app.fab``."""
        return self.out / "coordinator"

    @property
    def agreement(self) -> Path:
        """Return the folder that members sign."""
        return self.out / "agreement"

    @property
    def lab(self) -> Path:
        """Return where a lab's private keys lie (0700); real ones are made elsewhere."""
        return self.out / "lab"

    def kit(self, site: str) -> Path:
        """Return the folder that is sent to a site."""
        return self.out / "kits" / site

    def lab_member(self, name: str) -> Path:
        """Return a lab member's private key."""
        return self.lab / "members" / f"{name}.pem"

    def lab_site(self, name: str) -> Path:
        """Return the folder of a lab site's two private keys."""
        return self.lab / "sites" / name


def admitted(out: Path, *, lab: bool) -> Folders:
    """Return the folders; nothing is made.

    Raises ``OutputExists`` where something else than this kind lies, and ``InvalidInput`` for a
    name that no folder can have.
    """
    folders = Folders(out=out)
    require_nameable(out)
    envelope = folders.agreement / ROSTER_ENVELOPE
    if envelope.exists():
        if Roster.from_bytes(read_envelope(envelope.read_bytes()).payload).lab != lab:
            raise OutputExists(
                f"{out} holds a {'real' if lab else 'lab'} federation",
                why="lab keys were made in one place and must never mix with real ones",
                cure="name another folder",
            )
    elif _foreign(out) and not folders.coordinator.is_dir():
        raise OutputExists(
            f"{out} exists and holds something else",
            why="provision writes keys, and mixes them with nothing",
            cure="name a new folder, or the one of an earlier provision",
        )
    return folders


def _foreign(out: Path) -> bool:
    return out.exists() and any(out.iterdir())


def make_private(folder: Path) -> None:
    """Make a folder that its owner alone can enter (0700), or make an old one so."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if os.name != "nt":
        folder.chmod(0o700)

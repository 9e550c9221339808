"""Where open weights lie on this machine: files found by their SHA-256, whatever their name."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

from ..core.digest import PREFIX, file_digest
from ..core.files import write_atomic

SETTING = "COLLEGIUM_WEIGHTS"
DATA = "COLLEGIUM_DATA"
ENDINGS = frozenset({".safetensors", ".pt", ".pth", ".th", ".bin"})
_LOG = logging.getLogger(__name__)


def find_weights(digest: str) -> Path | None:
    """Return a local file whose SHA-256 is ``digest`` (``sha256:...``), None without one.

    Looked through: the files and folders that COLLEGIUM_WEIGHTS lists (``os.pathsep`` between
    them; folders with all below them), the folder weights of COLLEGIUM_DATA, then the caches of
    torch and Hugging Face. A file whose name holds the digest's first digits is hashed first.
    Digests are remembered by path, size and time of the last change; whoever loads the file
    checks its bytes again.
    """
    remembered = _Digests()
    short = digest.removeprefix(PREFIX)[:8]
    try:
        for folder in (*weight_folders(), *cache_folders()):
            found = sorted(_candidates(folder), key=lambda path: (short not in path.name, path))
            for path in found:
                if remembered.of(path) == digest:
                    return path
    finally:
        remembered.save()
    return None


def weight_folders() -> tuple[Path, ...]:
    """Return what COLLEGIUM_WEIGHTS lists, and the folder weights of COLLEGIUM_DATA."""
    listed = os.environ.get(SETTING, "").split(os.pathsep)
    found = [Path(entry).expanduser() for entry in listed if entry]
    beside = os.environ.get(DATA, "")
    return (*found, Path(beside).expanduser() / "weights") if beside else tuple(found)


def cache_folders() -> tuple[Path, ...]:
    """Return where torch and Hugging Face keep what they have fetched."""
    torch_home = os.environ.get("TORCH_HOME") or _cache_home() / "torch"
    hf_home = Path(os.environ.get("HF_HOME") or _cache_home() / "huggingface")
    return (
        Path(torch_home).expanduser() / "hub" / "checkpoints",
        Path(os.environ.get("HF_HUB_CACHE") or hf_home / "hub").expanduser(),
    )


def _candidates(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
        return
    for folder, _, names in os.walk(place):
        for name in names:
            if Path(name).suffix in ENDINGS:
                yield Path(folder) / name


def _cache_home() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


class _Digests:
    """Digests of files that have not changed since they were last hashed.

    Only to find a file: a wrong entry cannot bring wrong weights into a model.
    """

    def __init__(self) -> None:
        self._file = _cache_home() / "collegium" / "digests.json"
        self._known: dict[str, list[int | str]] = {}
        self._changed = False
        try:
            known = json.loads(self._file.read_bytes())
            self._known = known if isinstance(known, dict) else {}
        except (OSError, ValueError):
            pass  # nothing is remembered yet

    def of(self, path: Path) -> str | None:
        """Return the digest of a file, None for one that cannot be read."""
        try:
            facts = path.stat()
            marks = [facts.st_size, facts.st_mtime_ns]
            key = str(path.resolve())
            held = self._known.get(key)
            if held is not None and held[:2] == marks:
                return str(held[2])
            digest = file_digest(path)
        except OSError as error:
            _LOG.warning("A file of weights cannot be read (%s)", type(error).__name__)
            return None
        self._known[key] = [*marks, digest]
        self._changed = True
        return digest

    def save(self) -> None:
        """Remember what was hashed, where that is possible."""
        if not self._changed:
            return
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._file, json.dumps(self._known).encode())
        except OSError:
            _LOG.info("Digests of weights cannot be remembered in this user's cache folder")

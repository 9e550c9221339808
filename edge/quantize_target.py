"""What the processor of the devices wants of int8: signed activations, or a spare bit."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InvalidInput

ARM, X86 = ("arm64", "aarch64", "arm"), ("x86_64", "amd64", "i386", "i686", "x86")
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """How int8 numbers are laid out for a kind of processor.

    ``signed``: activations are int8, as ARM multiplies them best; else uint8. ``spare_bit``:
    weights have 7 bits, because x86 without VNNI adds two products in 16 bits, which would
    overflow (onnxruntime, "Quantize ONNX models", on U8S8 and reduce_range).
    """

    signed: bool = False
    spare_bit: bool = False


def processor(target: str, *, machine: str = "", flags: frozenset[str] | None = None) -> Processor:
    """Return what ``target`` wants: "here" (this machine), "x86" (any of them) or "arm".

    ``machine`` and ``flags`` stand in for what this machine says of itself. Raises
    ``InvalidInput`` for another word.
    """
    if target == "arm":
        return Processor(signed=True)
    if target == "x86":
        return Processor(spare_bit=True)  # nobody knows which one: some have no VNNI
    if target != "here":
        raise InvalidInput(
            f"the target '{target[:60]}' is not known",
            why="it names the processor of the devices",
            cure='write "here", "x86" or "arm"',
        )
    name = (machine or platform.machine()).lower()
    if name.startswith(ARM):
        return Processor(signed=True)
    found = _flags() if flags is None else flags
    return Processor(spare_bit=name in X86 and bool(found) and not _vnni(found))


def runs_here(target: str, *, machine: str = "") -> bool:
    """Return whether this machine's times are those of a ``target``: is it such a processor?

    ``machine`` stands in for what this machine says of itself.
    """
    name = (machine or platform.machine()).lower()
    names = {"arm": ARM, "x86": X86}.get(target)
    return names is None or name.startswith(names)


def _vnni(flags: frozenset[str]) -> bool:
    return bool(flags & {"avx512_vnni", "avx_vnni"})


def _flags() -> frozenset[str]:
    """Return the processor's flags as Linux lists them; none where nothing lists them."""
    try:
        text = CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    return frozenset(line.partition(":")[2].split())

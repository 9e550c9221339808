"""Figures and names as people read them: in the report and in a terminal."""

from __future__ import annotations

import math


def clean(text: str) -> str:
    """Return ``text`` with every control character replaced: no name can move the cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)


def epsilon(value: float, digits: int = 2) -> str:
    """Return an epsilon rounded up: a printed bound is never below the real one."""
    scale = 10**digits
    return f"{math.ceil(value * scale - 1e-9) / scale:.{digits}f}"


def general(value: float) -> str:
    """Return a number in its shortest form: '3', '0.3', '1e-5'."""
    return f"{value:g}".replace("e-0", "e-")


def size(count: float) -> str:
    """Return bytes in the largest decimal unit that keeps the number above one."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:g} B"


def shrinkage(ratio: float) -> str:
    """Return how a file compares with one ``ratio`` times its size: '18.6 times smaller'."""
    if ratio >= 1:
        return f"{ratio:.3g} times smaller"
    return f"{1 / ratio:.3g} times larger"


def duration(seconds: float) -> str:
    """Return seconds as people say them: '1.2 s', '23 s', '4 min 10 s', '2 h 5 min'."""
    if seconds < 10 and seconds % 1:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"

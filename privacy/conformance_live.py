"""Do the coordinates move that the plan says move in a round, no fewer and no others?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from .conformance import Finding, checked, unexercised
from .conformance_records import Attempt

LIVE = "coordinates that move"


def live_findings(
    sites: Mapping[str, Sequence[Attempt]], expected: Callable[[int], tuple[int, ...]]
) -> list[Finding]:
    """Return whether each step covered exactly the tensors that the plan has move in its round.

    ``expected`` gives, by round from 1 on, each live tensor's number of coordinates in layout
    order: all trainable ones, or those of the head while it warms up. So a tensor may be silent
    in a warm round alone, and only one that is not the head's.
    """
    return [_site(name, attempts, expected) for name, attempts in sites.items()]


def _site(
    name: str, attempts: Sequence[Attempt], expected: Callable[[int], tuple[int, ...]]
) -> Finding:
    steps = [(expected(a.key[1]), step) for a in attempts for step in a.steps.values()]
    if not steps:
        return unexercised(LIVE, name, "no step was taken")
    right = sum(
        step.size == sum(sizes) and (not step.tensor_sizes or step.tensor_sizes == sizes)
        for sizes, step in steps
    )
    ended = [a for a in attempts if a.ended]
    whole = sum(a.size == sum(expected(a.key[1])) for a in ended)
    text = f"{right} of {len(steps)} steps, {whole} of {len(ended)} updates"
    return checked(LIVE, name, text, holds=right == len(steps) and whole == len(ended))

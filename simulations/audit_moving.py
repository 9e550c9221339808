"""Which coordinates a run's rounds moved, against those that its plan has move."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..client.phases import live_sizes
from ..core.layout import Layout
from ..core.plan import Plan
from ..privacy.conformance import Finding
from ..privacy.conformance_live import live_findings
from ..privacy.conformance_records import Attempt


def moving_findings(
    plan: Plan, sites: Mapping[str, Sequence[Attempt]], layout: Layout
) -> list[Finding]:
    """Return whether each step was of the tensors that the plan has move in its round.

    ``layout`` is that of what trains: the head alone up to ``warm_head``, all of it afterwards.
    """
    shapes = zip(layout.names, layout.shapes, strict=True)
    sizes = {name: math.prod(shape) for name, shape in shapes}
    warm = plan.training.warm_head if plan.training else 0
    return live_findings(sites, lambda round: live_sizes(sizes, warm, round))

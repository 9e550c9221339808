"""Collegium: federated learning that a data-protection officer can sign."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.errors import CollegiumError
    from .core.plan import (
        CodecConfig,
        EdgeConfig,
        Evaluation,
        ModelRef,
        Plan,
        Privacy,
        Rounds,
        Simulation,
        SiteRef,
        StrategyConfig,
    )
    from .data.public import PublicSet
    from .data.site_data import SiteData
    from .simulations.run import RunResult, simulate

__version__ = "0.1.0"

__all__ = [
    "CodecConfig",
    "CollegiumError",
    "EdgeConfig",
    "Evaluation",
    "ModelRef",
    "Plan",
    "Privacy",
    "PublicSet",
    "Rounds",
    "RunResult",
    "Simulation",
    "SiteData",
    "SiteRef",
    "StrategyConfig",
    "simulate",
]

_HOMES = {
    "CollegiumError": "core.errors",
    "PublicSet": "data.public",
    "RunResult": "simulations.run",
    "SiteData": "data.site_data",
    "simulate": "simulations.run",
}


def __getattr__(name: str) -> Any:
    """Import a name of the menu when it is first used: ``import collegium`` stays light."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("." + _HOMES.get(name, "core.plan"), __name__), name)


def __dir__() -> list[str]:
    """Return the menu."""
    return sorted([*__all__, "__version__"])

"""What makes a simulated run the same run; its folder is held as any run's is."""

from __future__ import annotations

from dataclasses import asdict

from ..core.digest import digest_of
from ..core.plan import Plan
from ..server.run_folder import is_finished, load_stage, save_stage, workspace

__all__ = ["is_finished", "load_stage", "run_identity", "save_stage", "workspace"]


def run_identity(plan: Plan, *, custom: bool, processes: bool = False) -> str:
    """Return what a resumed run must share with its beginning: agreement, simulation, objects.

    ``processes``: a run of real processes is another run, though it gives the same model.
    """
    simulation = asdict(plan.simulation) if plan.simulation else None
    return digest_of(
        "collegium/processes/1" if processes else "collegium/simulation/1",
        {"plan": plan.agreement(), "simulation": simulation, "custom": custom},
    )

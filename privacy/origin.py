"""Where a data set comes from, and which origins may touch a model that leaves the consortium."""

from __future__ import annotations

from typing import Literal

from ..core.errors import Refused

Origin = Literal["public", "synthetic", "released", "private"]
RELEASABLE: tuple[Origin, ...] = ("public", "synthetic", "released")


def require_releasable(origin: str, use: str) -> None:
    """Raise ``Refused`` unless data of this origin may be used for ``use``.

    Anything computed from a differentially private model and data independent of the private
    records keeps the guarantee (post-processing, Dwork & Roth 2014, Prop. 2.1); private
    records would break it silently.
    """
    if origin not in RELEASABLE:
        raise Refused(
            f"{use} with data of origin '{origin}' is refused",
            why="private records would leave through the released model without a ledger entry",
            cure="use a public, synthetic or already released data set",
        )

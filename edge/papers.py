"""The texts that travel with a model: card, privacy statement, bill of materials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .card import CardFacts, card_text, privacy_in_words
from .sbom import Material, bill_of_materials
from .uses import Inputs

__all__ = [
    "CardFacts",
    "Inputs",
    "Material",
    "bill_of_materials",
    "card_text",
    "privacy_in_words",
    "privacy_statement",
]

COST = "none: post-processing of the released model with data that are not private"


def privacy_statement(
    privacy: Mapping[str, Any], inputs: Inputs, *, simulated: bool
) -> dict[str, Any]:
    """Return privacy.json: what the consortium states, and what the edge stage added: nothing.

    Every set that touched the model is named with its origin, and every use for which none was
    taken. Post-processing keeps the guarantee as long as no input is private (Dwork & Roth 2014,
    Prop. 2.1); ``PublicSet`` refuses private ones.
    """
    return {
        "schema": 1,
        "simulated": simulated,
        "in_words": privacy_in_words(privacy, simulated=simulated),
        "statement": dict(privacy),
        "edge_inputs": inputs.origins(),
        "edge_inputs_unused": inputs.unused(),
        "data_free": inputs.data_free,
        "edge_cost": COST,
    }

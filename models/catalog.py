"""Every open model by name: its card, without loading it and without torch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from ..core.errors import InvalidInput, NotAvailable
from ..core.fields import nearest
from ..core.plugins import is_plugin, load_plugin, plugin_names
from . import cards_open, cards_own
from .cards import NOTHING, UNKNOWN, ModelCard

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef

SHOWN = 6  # names in a message


@cache
def card(name: str) -> ModelCard:
    """Return the card of an open model.

    Raises ``InvalidInput`` for an unknown name, with the nearest known ones, and
    ``NotAvailable`` for a plug-in that is not installed.
    """
    found = plugin(name).card if is_plugin(name) else None
    found = found or cards_own.card(name) or cards_open.card(name)
    if found is not None:
        return found
    if folder := cards_open.written_as_path(name):
        raise InvalidInput(
            f"There is no open model '{name}'",
            why="a folder is written without ./, ../, ~ or / in front: relative to the folders of "
            "COLLEGIUM_WEIGHTS, or to the working folder, for it lies elsewhere at each site",
            cure=f'write "hf:{folder}"; where it does not lie in the working folder, set '
            "COLLEGIUM_WEIGHTS to the folder in which it lies",
        )
    raise InvalidInput(
        f"There is no open model '{name}'",
        why="a plan names a model that every site can fetch by digest",
        cure=suggestion(name),
    )


def names() -> tuple[str, ...]:
    """Return the names of all models that are known here; timm and hf take others as well."""
    return (*cards_own.names(), *cards_open.names(), *plugin_names("models"))


def suggestion(name: str) -> str:
    """Return what somebody who wrote an unknown name may have meant."""
    if guess := nearest(name, names()):
        return f'did you mean "{guess}"?'
    family = name.partition(":")[0]
    near = [known for known in names() if known.startswith(f"{family}:")] or list(names())
    more = " and others" if len(near) > SHOWN else ""
    return f"did you mean one of {', '.join(near[:SHOWN])}{more}?"


def describe(ref: ModelRef) -> ModelCard:
    """Return the card of a plan's model with the weights that the plan pins.

    What it was trained on, and its licence, follow the digest: weights that nobody published
    under that name have an unknown origin, and random ones none. Imports no torch.
    """
    found = card(ref.name)
    digest = ref.weights or found.weights
    if found.is_random(ref):
        return replace(found, weights=None, trained_on=NOTHING)
    if digest == found.weights:
        return found
    known = cards_open.published(ref.name, digest)
    if known is not None:
        return replace(found, weights=digest, trained_on=known.trained_on, license=known.license)
    family = ref.name.partition(":")[0]
    if family == cards_open.TIMM:
        return replace(found, weights=digest, trained_on=f"as its name says: {found.trained_on}")
    if family == cards_open.HF:
        from .hf_folder import told

        return told(replace(found, weights=digest), ref)
    return replace(
        found,
        weights=digest,
        license=f"{UNKNOWN}: these are nobody's published weights of that name",
        trained_on=f"{UNKNOWN}: these are nobody's published weights of that name",
    )


def plugin(name: str) -> Any:
    """Return a plug-in's model: an object with ``card`` and ``build(ref)``.

    Raises ``NotAvailable`` when it is not installed or is no such object.
    """
    found = load_plugin("models", name)
    if not isinstance(getattr(found, "card", None), ModelCard) or not callable(
        getattr(found, "build", None)
    ):
        raise NotAvailable(
            f"'{name}' is no model",
            why="a plug-in in collegium.models has a card (ModelCard) and build(ref)",
            cure="mend the package that offers it",
        )
    return found

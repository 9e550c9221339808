"""Does this version know the plan's model, and do options, inputs and parts fit it? No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..core.errors import InvalidInput, NotAvailable, Problem
from ..core.fields import shown
from ..core.plan import Plan
from ..core.plugins import is_plugin
from ..models import registry
from ..models.cards import ModelCard, option_problems
from ..models.cards_open import digests_of, written_as_path


def known_card(plan: Plan) -> ModelCard | None:
    """Return the card of the plan's model, None when this version does not know it."""
    try:
        return registry.card(plan.model.name)
    except (InvalidInput, NotAvailable):
        return None


def name(plan: Plan) -> Iterator[Problem]:
    """The model exists. A plug-in that is not installed is no fault of the plan."""
    try:
        registry.card(plan.model.name)
    except NotAvailable:
        return
    except InvalidInput as error:
        yield Problem(
            where="[model] name",
            what=f"{shown(plan.model.name)} is written as a path"
            if written_as_path(plan.model.name)
            else f"{shown(plan.model.name)} is not known",
            why=str(error.why),
            cure=str(error.cure),
        )


def weights(plan: Plan) -> Iterator[Problem]:
    """Weights are pinned where a model has some, and only there."""
    card, given = known_card(plan), plan.model.weights
    if card is None or is_plugin(card.name):
        return
    starts_empty = card.weights is None and not card.pinned
    if given is not None and given != card.weights and (starts_empty or card.input_shape):
        cure = f'write weights = "{card.weights}"' if card.weights else "remove weights"
        yield Problem(
            where="[model] weights",
            what=f"is not the digest of the weights of {plan.model.name} in this version",
            why="Every site must start from the same bytes",
            cure=cure,
        )
    if given is None and card.pinned and not card.is_random(plan.model):
        yield Problem(
            where="[model] weights",
            what=f"is missing for {shown(plan.model.name)}",
            why="Every site must start from the same bytes, also where hub = true",
            cure='write weights = "sha256:..." (what sha256sum prints of the file, or its page '
            f"on the hub{_published(card)}), or random = 1 in [model.options] to start from random "
            "weights",
        )


def options(plan: Plan) -> Iterator[Problem]:
    """The model has these options, and their numbers are possible."""
    if (card := known_card(plan)) is not None:
        yield from option_problems(card, plan.model)


def task(plan: Plan) -> Iterator[Problem]:
    """The model can learn this task."""
    card, asked = known_card(plan), plan.model.task
    if card is None or is_plugin(asked) or is_plugin(card.name) or asked in card.tasks:
        return
    yield Problem(
        where="[model] task",
        what=f"{shown(asked)} is not what {plan.model.name} learns",
        why="A segmenter answers per pixel, other models per record",
        cure=f"write {_listed(card.tasks)}, or name another model",
    )


def trainable(plan: Plan) -> Iterator[Problem]:
    """The model has the part that is to train."""
    card, asked = known_card(plan), plan.model.trainable.partition(":")[0]
    if card is None or is_plugin(card.name) or asked in card.parts:
        return
    yield Problem(
        where="[model] trainable",
        what=f"{shown(plan.model.trainable)} is nothing that {plan.model.name} has",
        why="It names the part of the model whose parameters leave a site",
        cure=f"write {_listed(card.parts)}",
    )


def image(plan: Plan) -> Iterator[Problem]:
    """An image model says which images, other models do not."""
    card, given = known_card(plan), bool(plan.model.image)
    if card is None or is_plugin(card.name) or card.name.startswith("hf:"):
        return
    needed = card.input_kind == "image" and not card.input_shape
    if needed == given:
        return
    yield Problem(
        where="[model] image",
        what=f"is {'given' if given else 'missing'} for {shown(plan.model.name)}",
        why="Every site's images have one shape"
        if needed
        else f"It reads records of the shape {list(card.input_shape)}"
        if card.input_shape
        else f"It reads a {card.input_kind}",
        cure="write image = [height, width, channels], like [28, 28, 1]"
        if needed
        else "remove image",
    )


def _published(card: ModelCard) -> str:
    known = digests_of(card)
    return f"; published ones: {known}" if known else ""


def _listed(choices: tuple[str, ...]) -> str:
    long = {"lora": "lora:R", "last": "last:N"}
    return " or ".join(f'"{long.get(choice, choice)}"' for choice in choices)


RULES: tuple[Callable[[Plan], Iterator[Problem]], ...] = (
    name,
    weights,
    options,
    task,
    trainable,
    image,
)

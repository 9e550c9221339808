"""What is publicly known of an open model, without loading it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..core.errors import InvalidInput, Problem
from ..core.fields import nearest

if TYPE_CHECKING:
    from ..core.plan_model import ModelRef

InputKind = Literal["table", "image", "text", "other"]
IMAGENET = "ImageNet-1K (ILSVRC 2012): photographs from the public web"
NOTHING = "nothing: random weights"
UNKNOWN = "not known"
CLASSIFIES = ("classification", "multilabel")
PREDICTS = (*CLASSIFIES, "regression", "survival")
HEAD_ONLY = ("head", "bias", "all")
PARTS = ("head", "bias", "norm", "lora", "last", "all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One number of ``[model.options]``: what it means, its default and its bounds."""

    name: str
    default: float
    low: float
    high: float
    about: str
    whole: bool = True

    def fault(self, value: float) -> str:
        """Return why ``value`` cannot be, or ''."""
        if not self.low <= value <= self.high:
            return f"{value:g} is not between {self.low:g} and {self.high:g}"
        return f"{value:g} is not a whole number" if self.whole and value % 1 else ""


RANDOM = Option(
    name="random", default=0, low=0, high=1, about="1: start from random weights (tests, timings)"
)
SIDE = Option(
    name="side",
    default=0,
    low=0,
    high=2048,
    about="pixels of each side to which images are resized; 0: as they are, or the least size",
)
FEATURE_NORM = Option(
    name="feature_norm",
    default=0,
    low=0,
    high=1e3,
    about="L2 norm that every feature vector gets before the head; 0: as it is",
    whole=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What is publicly known of an open model, without loading it.

    ``input_shape`` is one raw record's shape, without the batch axis; () where the plan decides
    it. ``classes`` are those of the untouched model's own head, () without one. ``parameters``
    counts the untouched model (0: known only when it is built), ``body_biases`` the bias
    coordinates before the head, ``head_inputs`` what the head reads (0: not known, or one per
    bound). ``weights`` is the digest that a plan need not repeat. ``tasks`` and ``parts`` say
    what it can learn and what of it can train; ``min_side`` the least height and width in
    pixels, ``fixed_side`` that it takes no other. ``pinned``: the plan must name the weights.
    """

    name: str
    license: str
    task: str
    input_shape: tuple[int, ...] = ()
    input_dtype: str
    classes: tuple[str, ...] = ()
    parameters: int = 0
    body_biases: int = 0
    head_inputs: int = 0
    weights: str | None = None
    trained_on: str
    summary: str
    input_kind: InputKind = "table"
    tasks: tuple[str, ...] = CLASSIFIES
    parts: tuple[str, ...] = PARTS
    options: tuple[Option, ...] = ()
    min_side: int = 1
    fixed_side: bool = False
    pinned: bool = False
    source: str = ""

    def option(self, ref: ModelRef, name: str) -> float:
        """Return an option of the plan, or the card's default; raises ``KeyError`` for others."""
        for option in self.options:
            if option.name == name:
                return ref.options.get(name, option.default)
        raise KeyError(name)

    def whole(self, ref: ModelRef, name: str) -> int:
        """Return an option as a whole number."""
        return int(self.option(ref, name))

    def is_random(self, ref: ModelRef) -> bool:
        """Return whether the plan asks for random weights."""
        return any(option.name == "random" for option in self.options) and bool(
            self.option(ref, "random")
        )


def option_problems(card: ModelCard, ref: ModelRef) -> Iterator[Problem]:
    """Yield what is wrong with the plan's options of this model."""
    known = {option.name: option for option in card.options}
    for name, value in ref.options.items():
        where = f"[model.options] {name}"
        if name not in known:
            guess = nearest(name, known)
            cure = f'did you mean "{guess}"?' if guess else f"write {_listed(known)}"
            yield Problem(
                where=where, what=f"{card.name} has no such option", why="It would do nothing",
                cure=cure if known else "remove it",
            )  # fmt: skip
        elif fault := known[name].fault(value):
            yield Problem(
                where=where,
                what=fault,
                why=f"It means: {known[name].about}",
                cure=f"write a number between {known[name].low:g} and {known[name].high:g}",
            )


def require_options(card: ModelCard, ref: ModelRef) -> None:
    """Raise ``InvalidInput`` with every problem of the plan's options."""
    if problems := list(option_problems(card, ref)):
        raise InvalidInput(f"The options of {card.name} do not fit", problems)


def _listed(names: dict[str, Option]) -> str:
    return " or ".join(f'"{name}"' for name in names)

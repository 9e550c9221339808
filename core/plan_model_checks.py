"""Contradictions in what a plan says of its model, its task and what is fitted beside it."""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .errors import Problem
from .fields import shown

if TYPE_CHECKING:
    from .plan import Plan

TABULAR = "tabular:"


def features(plan: Plan) -> Iterator[Problem]:
    """Public bounds and categories stand in the plan of a tabular model and nowhere else."""
    model = plan.model
    tabular = model.name.startswith((TABULAR, "plugin:"))
    for where, given in (
        ("[model.bounds]", bool(model.bounds)),
        ("[model.categories]", bool(model.categories)),
        ("[model] missing", model.missing != "refuse"),
        ("[model] unknown", model.unknown != "refuse"),
    ):
        if given and not tabular:
            yield Problem(
                where=where,
                what=f"is given for {shown(model.name)}",
                why="Only tabular models scale their inputs by bounds and know categories",
                cure=f"remove {where}, or name a tabular model",
            )
    if model.name.startswith(TABULAR) and not model.bounds and not model.categories:
        yield Problem(
            where="[model.bounds]",
            what="is missing",
            why="A tabular model scales its inputs by public bounds; none are fitted on records",
            cure='add [model.bounds] with one line "feature" = [lowest, highest] per column, or '
            "[model.categories]",
        )
    for name, (low, high) in model.bounds.items():
        yield from _width(name, low, high)
    for name, known in model.categories.items():
        yield from _category(plan, name, known)


def _width(name: str, low: float, high: float) -> Iterator[Problem]:
    width = _single(_single(high) - _single(low))
    if not 0 < width < math.inf:
        yield Problem(
            where=f"[model.bounds] {name}",
            what=f"[{low:g}, {high:g}] is "
            + ("too wide" if width > 0 else "too narrow")
            + " for numbers of 32 bits",
            why="Models subtract and divide in float32, where this width is "
            + ("infinite" if width > 0 else "0"),
            cure="write the feature in another measure, or move its bounds",
        )


def _single(value: float) -> float:
    """Return the value as float32 has it, infinite beyond its range."""
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def _category(plan: Plan, name: str, known: Sequence[str]) -> Iterator[Problem]:
    where = f"[model.categories] {name}"
    if name in plan.model.bounds:
        yield Problem(
            where=where,
            what="has bounds, too",
            why="A feature is a number or a category",
            cure="remove it from one of the two tables",
        )
    twice = [category for category, count in Counter(known).items() if count > 1]
    if not known or twice:
        yield Problem(
            where=where,
            what=f"lists {shown(twice[0])} twice" if twice else "lists no category",
            why="Each category is one input of the model",
            cure="list every category once",
        )


def image(plan: Plan) -> Iterator[Problem]:
    """An image has a height, a width and channels."""
    if plan.model.image and (len(plan.model.image) != 3 or plan.model.image[2] not in (1, 3)):
        yield Problem(
            where="[model] image",
            what=f"{list(plan.model.image)} is not height, width and 1 or 3 channels",
            why="Every site's images have one shape",
            cure="write image = [height, width, channels], like [28, 28, 1]",
        )


def class_weights(plan: Plan) -> Iterator[Problem]:
    """One public weight per class."""
    model = plan.model
    if model.class_weights and len(model.class_weights) != len(model.classes):
        yield Problem(
            where="[model] class_weights",
            what=f"has {len(model.class_weights)} weights for {len(model.classes)} classes",
            why="Each class has its own weight in the loss",
            cure="write one number per class, or remove class_weights",
        )


def target(plan: Plan) -> Iterator[Problem]:
    """Regression and survival scale their answers by public numbers; other tasks have none."""
    model, needs = plan.model, {"regression": 2, "survival": 2}.get(plan.model.task, 0)
    rising = all(low < high for low, high in zip(model.target, model.target[1:], strict=False))
    wrong = (model.task == "regression" and len(model.target) != 2) or len(model.target) < needs
    if needs and (wrong or not rising):
        yield Problem(
            where="[model] target",
            what="is missing" if not model.target else f"{list(model.target)} does not fit",
            why=f"The task {model.task} scales its answers by public numbers, never by records",
            cure="write target = [lowest, highest]"
            if model.task == "regression"
            else "write rising times from 0 on, like target = [0, 90, 180, 365]",
        )
    if model.target and not needs and not model.task.startswith("plugin:"):
        yield Problem(
            where="[model] target",
            what=f"is given for the task {shown(model.task)}",
            why="Only regression and survival have one",
            cure="remove target",
        )


def statistics(plan: Plan) -> Iterator[Problem]:
    """Common statistics are of a table's features, and count something."""
    asked, model = plan.statistics, plan.model
    if asked is None:
        return
    for key, wanted, table, there in (
        ("normalise", asked.normalise, "[model.bounds]", bool(model.bounds)),
        ("vocabulary", asked.vocabulary, "[model.categories]", bool(model.categories)),
    ):
        if wanted and not there:
            yield Problem(
                where=f"[statistics] {key}",
                what=f"is on, but there is no {table}",
                why="Sums are clipped to public bounds and counts are over a public list",
                cure=f"add {table}, or write {key} = false",
            )
    if not asked.normalise and not asked.vocabulary:
        yield Problem(
            where="[statistics]",
            what="asks for nothing",
            why="normalise and vocabulary are both off",
            cure="remove the table, or switch one of them on",
        )


def calibration(plan: Plan) -> Iterator[Problem]:
    """A threshold is between two classes; a temperature is of a classifier."""
    asked, model = plan.calibration, plan.model
    if asked is None:
        return
    if model.task != "classification":
        yield Problem(
            where="[calibration]",
            what=f"is asked for with the task {shown(model.task)}",
            why="Threshold and temperature are those of a classifier",
            cure="remove [calibration]",
        )
    elif asked.criterion != "none" and len(model.classes) != 2:
        yield Problem(
            where="[calibration] criterion",
            what=f"{shown(asked.criterion)} is asked for with {len(model.classes)} classes",
            why="A threshold is between two classes",
            cure='write criterion = "none": the temperature is fitted alone',
        )
    elif asked.criterion == "none" and not asked.temperature:
        yield Problem(
            where="[calibration]",
            what="asks for nothing",
            why='criterion is "none" and temperature is off',
            cure="remove the table, or switch one of them on",
        )


def shares(plan: Plan) -> Iterator[Problem]:
    """What is fitted beside the training must leave it something to spend."""
    parts = [part.share for part in (plan.statistics, plan.calibration) if part is not None]
    if sum(share * share for share in parts) >= 0.9:
        yield Problem(
            where="[statistics] share",
            what="and [calibration] share leave the training nothing to spend",
            why="Costs add in squares, and these two alone reach the plan's epsilon",
            cure="write smaller shares, such as 0.1",
        )


def training(plan: Plan) -> Iterator[Problem]:
    """Augmentation varies images; a warm head ends before the rounds do."""
    asked = plan.training
    if asked is None:
        return
    model = plan.model
    if asked.augment != "none" and (
        model.bounds or model.categories or model.name.startswith("text:")
    ):
        yield Problem(
            where="[training] augment",
            what=f"is {shown(asked.augment)}, and the records of {shown(model.name)} are no images",
            why="It shifts and mirrors images",
            cure="remove augment",
        )
    if asked.augmentations > 1 and asked.augment == "none":
        yield Problem(
            where="[training] augmentations",
            what=f"is {asked.augmentations}, but augment is none",
            why="Copies that do not differ have the gradient of one",
            cure='write augment = "flip-shift", or augmentations = 1',
        )
    if asked.warm_head >= plan.rounds.count:
        yield Problem(
            where="[training] warm_head",
            what=f"{asked.warm_head} is not below the {plan.rounds.count} rounds",
            why="Nothing but the head would ever train",
            cure='write fewer, or trainable = "head"',
        )
    if asked.warm_head and plan.model.trainable == "head":
        yield Problem(
            where="[training] warm_head",
            what='is set, but trainable is "head"',
            why="Only the head trains in every round",
            cure="remove warm_head",
        )


def averages(plan: Plan) -> Iterator[Problem]:
    """One average of the rounds' models is released, not two."""
    if plan.strategy.ema and plan.strategy.iterate_average:
        yield Problem(
            where="[strategy] ema",
            what="is set beside iterate_average",
            why="One average of the rounds' models can be released",
            cure="remove one of the two",
        )


def private_tasks(plan: Plan) -> Iterator[Problem]:
    """Noised counts of right answers exist where an answer is right or wrong."""
    if plan.evaluation.origin == "private" and plan.model.task != "classification":
        yield Problem(
            where="[evaluation] origin",
            what=f'is "private" with the task {shown(plan.model.task)}',
            why="Right answers are counted, and only a class is right or wrong",
            cure='write origin = "public" where the test parts may be public',
        )


def files(plan: Plan) -> Iterator[Problem]:
    """Files are named where they are read."""
    asked = plan.simulation
    if asked is None or (asked.dataset == "files") == (asked.files is not None):
        return
    yield Problem(
        where="[simulation] files",
        what="is missing" if asked.files is None else f"is set beside {shown(asked.dataset)}",
        why="It says where the sites' own files are",
        cure='write dataset = "files" and files = "sites"',
    )


RULES: tuple[Callable[[Plan], Iterator[Problem]], ...] = (
    features,
    image,
    class_weights,
    target,
    averages,
    statistics,
    training,
    calibration,
    shares,
    private_tasks,
    files,
)

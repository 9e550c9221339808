"""Contradictions inside a plan: rules over several keys, each yielding problems with a cure.

Types and ranges of single keys stand in ``plan.py`` and are checked by ``fields.py``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .errors import Problem
from .fields import shown
from .plan_edge_checks import RULES as EDGE_RULES
from .plan_model_checks import RULES as MODEL_RULES

if TYPE_CHECKING:
    from .plan import Plan
    from .plan_tables import PlanFile

MAX_STEPS = 200_000
"""Composing the privacy loss of more steps takes minutes and gigabytes (measured: 1e7, 380 s)."""


def schema_problems(file: PlanFile) -> Iterator[Problem]:
    """Refuse a file format that this version does not know."""
    if file.schema != 1:
        yield Problem(
            where="schema",
            what=f"{shown(file.schema)} is not a known format",
            why="This version reads format 1; a newer plan may mean its keys differently",
            cure="write schema = 1, or use the version of collegium that wrote the plan",
        )


def roster(plan: Plan) -> Iterator[Problem]:
    """At least one site, each name and each key once."""
    if not plan.sites:
        yield Problem(
            where="[[sites]]",
            what="there is no site",
            why="A federation needs at least one",
            cure="add a table [[sites]] with name and public_records for each institution",
        )
    for attribute in ("name", "public_key"):
        values = [getattr(site, attribute, None) for site in plan.sites]
        for value, count in Counter(values).items():
            if value is not None and count > 1:
                numbers = [str(i) for i, other in enumerate(values, 1) if other == value]
                yield Problem(
                    where=f"[[sites]] {' and '.join(numbers)}",
                    what=f"{attribute} {shown(value)} is used {count} times",
                    why="Ledger, updates and budget of a site are filed under its own name and key",
                    cure=f"give every site its own {attribute}",
                )


def weights(plan: Plan) -> Iterator[Problem]:
    """Weights at all sites or at none: the default is a count of records, another scale."""
    given = [site.weight is not None for site in plan.sites]
    if any(given) and not all(given):
        absent = ", ".join(str(i) for i, has in enumerate(given, 1) if not has)
        yield Problem(
            where="[[sites]] weight",
            what=f"is given at some sites and not at {absent}",
            why="A site without it weighs its public_records, so one side would count for nothing",
            cure="write weight at every site or at none",
        )


def classes(plan: Plan) -> Iterator[Problem]:
    """Class names fit the task and are distinct."""
    model, where = plan.model, "[model] classes"
    least = {"classification": 2, "segmentation": 2, "multilabel": 1}.get(model.task, 0)
    if len(model.classes) < least:
        yield Problem(
            where=where,
            what=f"has {len(model.classes)} of at least {least} names",
            why=f"The task {model.task} has one output per class",
            cure='list the names in label order, like classes = ["benign", "malignant"]',
        )
    if model.classes and not least and not model.task.startswith("plugin:"):
        yield Problem(
            where=where,
            what=f"are named for the task {model.task}",
            why="That task has no classes",
            cure='remove classes, or write task = "classification"',
        )
    for name, count in Counter(model.classes).items():
        if count > 1:
            yield Problem(
                where=where,
                what=f"{shown(name)} stands there {count} times",
                why="Every class needs its own name",
                cure="rename or remove one",
            )


def evaluation_rounds(plan: Plan) -> Iterator[Problem]:
    """``every:N`` fits into the rounds and is public."""
    every, count = plan.evaluation.every, plan.rounds.count
    if every > count:
        yield Problem(
            where="[evaluation] rounds",
            what=f'"every:{every}" is longer than the plan of {count} rounds',
            why="No round would be evaluated",
            cure=f'write "last" or an N of at most {count}',
        )


def private_evaluation(plan: Plan) -> Iterator[Problem]:
    """Private evaluation of many rounds would spend more than the plan says."""
    if plan.evaluation.every and plan.evaluation.origin == "private":
        yield Problem(
            where="[evaluation] rounds",
            what=f'"every:{plan.evaluation.every}" is asked for with a private origin',
            why="Each private evaluation spends budget, and the plan does not hold that spend",
            cure='write rounds = "last", or origin = "public" where the test parts may be public',
        )


def delta(plan: Plan) -> Iterator[Problem]:
    """A delta of 1/n or more would allow publishing a record outright."""
    largest = _largest_site(plan)
    if plan.privacy.enabled and plan.privacy.delta * largest >= 1:
        yield Problem(
            where="[privacy] delta",
            what=f"{plan.privacy.delta:g} is not below 1/{largest}, the largest site's records",
            why="At that delta a mechanism that publishes a random record would pass as private",
            cure=f"write a delta well below {1 / largest:.1g}, such as {0.1 / largest:.0e}",
        )


def batch_cap(plan: Plan) -> Iterator[Problem]:
    """The cap of truncated Poisson sampling is not below the mean batch."""
    privacy = plan.privacy
    mean = privacy.sampling_rate * _largest_site(plan)
    if 0 < privacy.batch_cap < mean:
        # Mean plus nine standard deviations costs next to no epsilon (privacy note, section 5).
        enough = int(mean + 9 * mean**0.5) + 1
        yield Problem(
            where="[privacy] batch_cap",
            what=f"{privacy.batch_cap} is below the mean batch of {mean:g} records",
            why="Truncation would cut most batches and cost epsilon",
            cure=f"write {enough} or more, or 0 for plain Poisson sampling",
        )


def _largest_site(plan: Plan) -> int:
    return max((getattr(site, "public_records", 0) for site in plan.sites), default=0)


def steps(plan: Plan) -> Iterator[Problem]:
    """Rounds times steps stay within what can be accounted and run."""
    total = plan.rounds.count * plan.rounds.local_steps
    if total > MAX_STEPS:
        yield Problem(
            where="[rounds] local_steps",
            what=f"count x local_steps = {total} is more than {MAX_STEPS}",
            why="So many noisy steps cannot be accounted in reasonable time, and cost far too much",
            cure="lower count or local_steps",
        )


def fedadam_keys(plan: Plan) -> Iterator[Problem]:
    """Keys of fedadam say nothing under the plain mean."""
    if plan.strategy.name != "mean":
        return
    plain = type(plan.strategy)()
    for key in ("beta1", "beta2", "tau"):
        if getattr(plan.strategy, key, getattr(plain, key)) != getattr(plain, key):
            yield Problem(
                where=f"[strategy] {key}",
                what='is set, but the strategy is "mean"',
                why="Only fedadam reads it",
                cure=f'remove {key}, or write name = "fedadam"',
            )


RULES: tuple[Callable[[Plan], Iterator[Problem]], ...] = (
    roster,
    weights,
    classes,
    steps,
    fedadam_keys,
    evaluation_rounds,
    private_evaluation,
    delta,
    batch_cap,
    *MODEL_RULES,
    *EDGE_RULES,
)

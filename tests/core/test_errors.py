"""The drawn tree: every member's exit code is the documented one, every message is one text."""

import re

import pytest

from collegium.core import errors
from collegium.core.errors import CollegiumError, InvalidInput, InvalidPlan, OverBudget, Problem


def members(root: type[CollegiumError]) -> list[type[CollegiumError]]:
    """Every error below ``root``."""
    return [each for child in root.__subclasses__() for each in (child, *members(child))]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = dict(re.findall(r"\+-- (\w+) +(\d+)", errors.__doc__ or ""))
    real = {each.__name__: each for each in members(CollegiumError)}
    assert {"InvalidPlan", "InvalidSiteFile", "NotBuiltYet", "NotLoaded"} | set(drawn) == set(real)
    assert {name: real[name].exit_code for name in drawn} == {k: int(v) for k, v in drawn.items()}
    assert CollegiumError.exit_code == 70
    assert (real["InvalidPlan"].exit_code, real["NotBuiltYet"].exit_code) == (65, 69)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (CollegiumError("it broke"), "it broke."),
        (OverBudget("too much.", why="caps hold", cure="ask less"),
         "too much. Caps hold. Cure: ask less."),
        (InvalidInput("no data", why="the file is empty"), "no data. The file is empty."),
        (OverBudget("no", cure="did you mean y?"), "no. Cure: did you mean y?"),
        (InvalidInput("a", [Problem(where="b", what="c", why="d", cure="did you mean e?")]),
         "a: 1 problem in this input\n  - b: c. d. Cure: did you mean e?"),
    ],
)  # fmt: skip
def test_messages_are_sentences(error: CollegiumError, text: str) -> None:
    assert str(error) == text


def test_all_problems_stand_in_one_message() -> None:
    one = Problem(where="[a] b", what="is wrong", why="because", cure="mend it")
    error = InvalidPlan("plan.toml", [one, one])
    assert str(error).splitlines() == [
        "plan.toml: 2 problems in this plan",
        "  - [a] b: is wrong. because. Cure: mend it.",
        "  - [a] b: is wrong. because. Cure: mend it.",
    ]

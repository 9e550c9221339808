"""The generic reader: what a table must hold, in words, and no input that makes it raise."""

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.fields import About, about, allowed_values, homes_of, keys_of, nearest, shown
from collegium.core.plan_tables import PlanFile, examine
from collegium.core.reading import Reader, apply_rules, to_table
from collegium.core.site_file import SiteTables


@dataclass(frozen=True, slots=True, kw_only=True)
class Toy:
    count: int = field(metadata=about("How many.", low=1, high=9))
    share: float = field(default=0.5, metadata=about("How much.", above=0, below=1))
    kind: Literal["red", "green"] = field(default="red", metadata=about("Which."))
    names: tuple[str, ...] = field(default=(), metadata=about("Who."))
    on: bool = field(default=True, metadata=about("Whether."))
    extra: str | None = field(default=None, metadata=about("What else."))


def problems_of(table: dict[str, object]) -> list[str]:
    reader = Reader()
    reader.table(Toy, table, "[toy]")
    return [f"{p.where}: {p.what}" for p in reader.problems]


def test_a_good_table_becomes_its_dataclass() -> None:
    reader = Reader()
    made = reader.table(Toy, {"count": 3, "share": 0.25, "names": ["a"]})
    assert not reader.problems
    assert made == Toy(count=3, share=0.25, names=("a",))
    assert to_table(made) == {
        "count": 3, "share": 0.25, "kind": "red", "names": ["a"], "on": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ({}, "[toy] count: is missing"),
        ({"count": "3"}, '[toy] count: "3" is a text, not a whole number'),
        ({"count": True}, "[toy] count: true is true or false, not a whole number"),
        ({"count": 3.0}, "[toy] count: 3.0 is a number, not a whole number"),
        ({"count": 0}, "[toy] count: 0 is below 1"),
        ({"count": 10}, "[toy] count: 10 is above 9"),
        ({"count": 10**400}, "[toy] count: 10^30 or more is not a finite number"),
        ({"count": 1, "share": 0}, "[toy] share: 0 is not above 0"),
        ({"count": 1, "share": 1}, "[toy] share: 1 is not below 1"),
        ({"count": 1, "share": float("nan")}, "[toy] share: nan is not a finite number"),
        ({"count": 1, "share": True}, "[toy] share: true is true or false, not a number"),
        ({"count": 1, "kind": "gren"}, '[toy] kind: "gren" is not a known value'),
        ({"count": 1, "kind": ""}, '[toy] kind: "" is empty'),
        ({"count": 1, "names": "ab"}, "[toy] names: is a text, not a list of texts"),
        ({"count": 1, "names": ["a", 2]}, "[toy] names 2: 2 is a whole number, not a text"),
        ({"count": 1, "on": 1}, "[toy] on: 1 is a whole number, not true or false"),
        ({"count": 1, "extra": date(2026, 1, 2)}, "[toy] extra: 2026-01-02 is a date, not a text"),
        ({"cuont": 1}, "[toy] cuont: is not a known key"),
        ({"count": 1, "x": {}}, "[toy.x]: is not a known table"),
    ],
)
def test_each_fault_is_named_once(table: dict[str, object], found: str) -> None:
    assert problems_of(table) == [found]


def test_all_faults_of_a_table_are_reported_together() -> None:
    assert len(problems_of({"count": 0, "share": 2, "kind": "blue", "on": "yes", "zzz": 1})) == 5


def test_a_misspelt_key_is_not_also_reported_missing() -> None:
    reader = Reader()
    reader.table(Toy, {"cuont": 3})
    assert [p.cure for p in reader.problems] == [
        "did you mean 'count'? Write that, or remove cuont"
    ]


def test_a_rule_that_meets_a_hole_says_nothing_but_a_mistake_in_it_is_raised() -> None:
    holed = Reader().table(Toy, {"count": "many"})

    def reads_hole(toy: Toy):
        yield pytest.fail(f"read {toy.count}")

    def misspells(toy: Toy):
        yield toy.cuont  # pyright: ignore

    assert apply_rules([reads_hole], holed) == []
    with pytest.raises(AttributeError):
        apply_rules([misspells], holed)


def test_words_of_limits() -> None:
    assert keys_of(Toy)["count"].allowed() == "a whole number from 1 to 9"
    assert keys_of(Toy)["share"].allowed() == "a number above 0 and below 1"
    assert keys_of(Toy)["kind"].allowed() == 'one of "red", "green"'
    assert allowed_values(float, About(text="")) == "a number"
    assert nearest("epsilonn", ["delta", "epsilon"]) == "epsilon"
    assert nearest("zzz", ["delta", "epsilon"]) == ""


def test_shown_is_short_and_safe_to_print() -> None:
    assert shown(True) == "true"
    assert shown("a\x1b[31m") == '"a\\u001b[31m"'
    assert len(shown("x" * 1000)) <= 48
    assert shown(-(10**99)) == "-10^30 or more"


def test_every_key_of_both_files_says_what_it_means() -> None:
    for root in (PlanFile, SiteTables):
        assert "[privacy]" in homes_of(PlanFile)["epsilon"]
        for table in keys_of(root).values():
            inner = getattr(table.hint, "__dataclass_fields__", None)
            for key in keys_of(table.hint).values() if inner else ():
                assert key.about.text, f"{table.name}.{key.name}"


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates()
)
names = st.sampled_from(["name", "count", "epsilon", "bounds", "classes", "schema", "weight"])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(names | st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=12,
)
tables = st.dictionaries(st.sampled_from(list(keys_of(PlanFile))) | st.text(max_size=8), values)


@given(tables)
@settings(max_examples=300, deadline=None)
def test_no_table_makes_the_plan_reader_raise(table: dict[str, object]) -> None:
    _, problems = examine(table)
    assert problems
    for problem in problems:
        assert str(problem).isprintable() and problem.cure and problem.why


@given(st.dictionaries(st.sampled_from(list(keys_of(SiteTables))), values))
@settings(max_examples=200, deadline=None)
def test_no_table_makes_the_site_reader_raise(table: dict[str, object]) -> None:
    from collegium.core.site_file import examine as examine_site

    assert examine_site(table)[1]

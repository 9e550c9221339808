"""Single words: what the eye cannot tell apart is one institution, or no name at all."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collegium.core.forms import folded, text_fault
from collegium.core.roster import same_institution

UNSEEN = "\u3164\u2800\u034f\ufe0f\ufe00\u115f\u1160\u17b4\u17b5\u180b\u180d\u180f\uffa0\U000e0100"


@pytest.mark.parametrize("character", [*UNSEEN, "\u200b", "\u2060", "\u00ad", "\ufeff", "\u202e"])
@pytest.mark.parametrize("text", ["North{}", "No{}rth", "{}North", "{}"])
def test_what_nobody_can_see_is_refused(character: str, text: str) -> None:
    assert text_fault(text.format(character))


@pytest.mark.parametrize(
    "text",
    [
        "St. Mary's",
        "Clínica del Mar",
        "Universität Zürich",
        "東京大学",
        "서울대학교병원",
        "ก้าน",
        "कि",
    ],
)
def test_names_of_the_world_are_names(text: str) -> None:
    assert text_fault(text) == ""
    assert same_institution(text, unicodedata.normalize("NFD", text))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("St. Mary", "St Mary"),
        ("St. Mary", "st.mary"),
        ("Uni-Klinik", "Uni\u2010Klinik"),
        ("North Hospital", "NORTH  HOSPITAL"),
        ("\uff2e\uff4f\uff52\uff54\uff48", "North"),
        ("O'Neill", "O\u2019Neill"),
        ("North", "North\u0332"),
        ("Straße", "STRASSE"),
    ],
)
def test_the_same_name_to_the_eye(one: str, other: str) -> None:
    assert same_institution(one, other)


@pytest.mark.parametrize(
    ("one", "other"), [("Ward 1", "Ward 2"), ("North", "South"), ("Zürich", "Zurich")]
)
def test_other_names_stay_others(one: str, other: str) -> None:
    assert not same_institution(one, other)


@given(st.text(max_size=40))
def test_folding_is_settled_and_holds_letters_and_digits_alone(text: str) -> None:
    assert folded(folded(text)) == folded(text)
    assert all(character.isalnum() for character in folded(text))


@given(st.text(max_size=20), st.sampled_from(UNSEEN), st.integers(0, 20))
def test_nothing_unseen_makes_a_second_institution(text: str, unseen: str, place: int) -> None:
    doctored = text[:place] + unseen + text[place:]
    assert text_fault(doctored) or folded(doctored) == folded(text)

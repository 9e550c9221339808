"""``edge``: the words reach the device's own program, and its exit code comes back."""

import pytest

from collegium.cli.main import run
from collegium.edge import device


@pytest.mark.parametrize(
    ("words", "seen"),
    [
        ("edge verify b --key k.pem", ["verify", "b", "--key=k.pem"]),
        (
            "edge verify b --key k.pem --allow-simulated --json",
            ["verify", "b", "--key=k.pem", "--allow-simulated", "--json"],
        ),
        ("edge predict b x.npy --key k.pem", ["predict", "b", "x.npy", "--key=k.pem"]),
    ],
)
def test_words_are_handed_on(monkeypatch: pytest.MonkeyPatch, words: str, seen: list[str]) -> None:
    heard: list[list[str]] = []

    def main(arguments: list[str], *, prog: str) -> int:
        assert prog == "collegium edge"
        heard.append(arguments)
        return 77

    monkeypatch.setattr(device, "main", main)
    assert run(words.split()) == 77
    assert heard == [seen]


@pytest.mark.parametrize("words", ["edge verify b", "edge predict b x.npy", "edge verify --key k"])
def test_without_a_trusted_key_nothing_is_verified(words: str) -> None:
    assert run(words.split()) == 64


def test_missing_bundle_is_an_error_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["edge", "verify", "nowhere", "--key", "none.pem"]) in (66, 77)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["pull", "rollback"])
def test_other_verbs_are_not_built_yet(verb: str) -> None:
    assert run(["edge", verb, "x"]) == 69

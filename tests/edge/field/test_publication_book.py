"""The book: what a publisher signed outlives a served folder that was lost, put back or copied."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import InvalidInput, MissingInput, Refused
from collegium.core.signing import generate_key
from collegium.edge.publication import add, highest, refresh, withdraw
from collegium.edge.publication_book import Memory, beside, recall
from collegium.edge.publication_index import read_index


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return beside(tmp_path / "lab.pem")


def put(field_: Any, book: Path | None, version: int, **terms: Any) -> Path:
    return add(field_.publication, field_.bundle(version, **terms), [field_.key], book=book)


def test_a_restored_index_keeps_what_was_withdrawn_since(
    field_: Any, book: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The reviewer's case: without the book a fresh device took the bad version 2."""
    put(field_, book, 1)
    put(field_, book, 2)
    old = (field_.publication / "index.sig").read_bytes()
    withdraw(field_.publication, 2, "wrong", [field_.key], book=book)
    (field_.publication / "index.sig").write_bytes(old)
    found = refresh(field_.publication, [field_.key], book=book)
    assert [offer.version for offer in found.offers] == [1]
    assert [(each.version, each.reason) for each in found.withdrawn] == [(2, "wrong")]
    assert found.sequence == 4 and "withdrawn again, version 2" in caplog.text
    home = field_.home()
    assert home.pull().outcome == "updated" and field_.runs(home) == 1
    (field_.publication / "index.sig").write_bytes(old)
    with pytest.raises(Refused, match="withdrawn"):
        add(field_.publication, field_.folder / "bundle-2", [field_.key], book=book)
    with pytest.raises(MissingInput, match="version 2 is not offered"):
        withdraw(field_.publication, 2, "again", [field_.key], book=book)
    add(field_.publication, field_.folder / "bundle-1", [field_.key], book=book)  # it is offered
    index = read_index(field_.publication, [field_.key.public_key()])
    assert [offer.version for offer in index.offers] == [1] and index.sequence == 5


def test_a_lost_folder_goes_on_where_it_ended(field_: Any, book: Path) -> None:
    put(field_, book, 1)
    put(field_, book, 2)
    withdraw(field_.publication, 2, "wrong", [field_.key], book=book)
    put(field_, book, 3)
    home = field_.home()
    home.pull()
    shutil.rmtree(field_.publication)
    assert highest(field_.publication, book=book, name="pilot") == 3
    assert highest(field_.publication, book=book, name="another") == 0
    with pytest.raises(Refused, match=r"as another bundle.*version 4"):
        put(field_, book, 3, out="other", gate={"another": True})
    with pytest.raises(Refused, match=r"not newer than 2.*version 4"):
        put(field_, book, 2, out="third", gate={"another": True})
    with pytest.raises(Refused, match="withdrawn"):
        add(field_.publication, field_.folder / "bundle-2", [field_.key], book=book)
    put(field_, book, 4)
    for version in (1, 3):  # the very bundles that were there
        add(field_.publication, field_.folder / f"bundle-{version}", [field_.key], book=book)
    index = read_index(field_.publication, [field_.key.public_key()])
    assert [each.version for each in index.offers] == [1, 3, 4]
    assert (index.sequence, [each.version for each in index.withdrawn]) == (7, [2])
    assert home.pull().outcome == "updated" and field_.runs(home) == 4


def test_a_trial_folder_of_the_same_name_does_no_harm(field_: Any, book: Path) -> None:
    folder = put(field_, book, 1)
    other = field_.folder / "shown"
    copy = add(other, field_.folder / "bundle-1", [field_.key], book=book)
    assert copy.name == folder.name
    assert read_index(other, [field_.key.public_key()]).sequence == 2
    add(other, field_.folder / "bundle-1", [field_.key], book=book)  # nothing has changed
    assert read_index(other, [field_.key.public_key()]).sequence == 2
    third = field_.folder / "third"
    add(third, field_.bundle(1, out="foreign", name="another"), [field_.key], book=book)
    assert recall(book, "another").sequence == 1 and recall(book, "pilot").sequence == 2


def test_the_book_is_written_before_devices_can_see_the_index(
    field_: Any, book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collegium.edge import publication

    put(field_, book, 1)
    whole = publication.write_atomic

    def full(path: Path, *chunks: Any) -> None:
        if path.name == "index.sig":
            raise OSError(28, "No space left on device")
        whole(path, *chunks)

    with monkeypatch.context() as patch:
        patch.setattr(publication, "write_atomic", full)
        with pytest.raises(OSError, match="space"):
            withdraw(field_.publication, 1, "wrong", [field_.key], book=book)
    assert [each.version for each in recall(book, "pilot").withdrawn] == [1]
    found = refresh(field_.publication, [field_.key], book=book)
    assert found.offers == () and found.sequence == 3


def test_a_book_that_cannot_be_read_or_written_stops_before_anything_is_published(
    field_: Any, book: Path
) -> None:
    put(field_, book, 1)
    assert book.stat().st_mode & 0o777 == 0o600
    before = (field_.publication / "index.sig").read_bytes()
    table = json.loads(book.read_bytes())
    row = table["publications"]["pilot"]
    for spoilt in ("", "{}", "[]", json.dumps(table | {"schema": 2}),
                   json.dumps({"schema": 1, "publications": {"pilot": row | {"sequence": []}}}),
                   json.dumps({"schema": 1, "publications": {"pilot": row | {"withdrawn": [1]}}}),
                   json.dumps({"schema": 1, "publications": {"pilot": None}})):  # fmt: skip
        book.write_text(spoilt)
        with pytest.raises(InvalidInput, match="backup"):
            refresh(field_.publication, [field_.key], book=book)
    with pytest.raises(MissingInput, match="read"):
        refresh(field_.publication, [field_.key], book=field_.folder)
    with pytest.raises(MissingInput, match="--book"):
        refresh(field_.publication, [field_.key], book=field_.folder / ("x" * 250))
    assert (field_.publication / "index.sig").read_bytes() == before
    assert recall(None, "pilot") == Memory() == recall(field_.folder / "none", "pilot")


def test_what_another_member_withdrew_is_remembered_once_it_was_seen(
    field_: Any, book: Path, tmp_path: Path
) -> None:
    member, own = generate_key(), [field_.key.public_key()]
    put(field_, book, 1)
    put(field_, book, 2)
    old = (field_.publication / "index.sig").read_bytes()
    withdraw(
        field_.publication, 2, "wrong", [member], trusted=own, book=beside(tmp_path / "member.pem")
    )
    refresh(field_.publication, [field_.key], trusted=[member.public_key()], book=book)
    (field_.publication / "index.sig").write_bytes(old)
    found = refresh(field_.publication, [field_.key], book=book)
    assert [each.version for each in found.offers] == [1]

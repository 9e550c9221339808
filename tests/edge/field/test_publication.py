"""The publisher's side: what is added, taken back, signed by several, and shown to people."""

import base64
import json
import shutil
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from collegium.core.digest import sha256_hex
from collegium.core.errors import InvalidInput, MissingInput, OutputExists, Refused
from collegium.core.signing import fingerprint, generate_key
from collegium.edge.countersign import countersign, read_signable
from collegium.edge.device import DeviceError
from collegium.edge.device.envelope import signed_payload
from collegium.edge.device.index import parse_index
from collegium.edge.publication import add, highest, refresh, withdraw
from collegium.edge.publication_index import read_index
from collegium.edge.single_file import device_script


def index_of(field_: Any) -> Any:
    return read_index(field_.publication, [field_.key.public_key()])


def test_the_index_says_what_was_published(field_: Any) -> None:
    made = datetime(2026, 3, 1, tzinfo=UTC)
    bundle = field_.bundle(1, created=made)
    folder = add(field_.publication, bundle, [field_.key], now=made, valid_days=30)
    statement = json.loads(
        signed_payload((field_.publication / "index.sig").read_bytes(),
                       [field_.key.public_key()], 1)
    )  # fmt: skip
    (entry,) = statement["predicate"].pop("bundles")
    assert statement["predicate"] == {
        "name": "pilot", "sequence": 1, "withdrawn": [],
        "created": "2026-03-01T00:00:00+00:00", "expires": "2026-03-31T00:00:00+00:00",
        "device_digest": sha256_hex((field_.publication / "device.py").read_bytes()),
    }  # fmt: skip
    assert (statement["subject"], statement["predicateType"]) == ([], "urn:collegium:index:v1")
    total = sum(p.stat().st_size for p in bundle.iterdir() if p.name != "bundle.sig")
    assert entry == {
        "version": 1, "digest": entry["digest"], "folder": folder.name, "bytes": total,
        "simulated": False,
    }  # fmt: skip
    assert folder.name == f"v1-{entry['digest'][7:19]}"
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {
        p.name: p.read_bytes() for p in bundle.iterdir()
    }
    assert (field_.publication / "device.py").read_text() == device_script()


def test_each_change_raises_the_sequence_and_the_same_bundle_changes_nothing(field_: Any) -> None:
    assert highest(field_.publication) == 0
    folder = field_.publish(1)
    before = (field_.publication / "index.sig").read_bytes()
    assert add(field_.publication, field_.folder / "bundle-1", [field_.key]) == folder
    assert (field_.publication / "index.sig").read_bytes() == before
    field_.publish(3)
    withdraw(field_.publication, 3, "wrong", [field_.key])
    found = refresh(field_.publication, [field_.key], valid_days=10)
    assert (found.sequence, highest(field_.publication)) == (4, 3)
    assert found.expires - found.created == timedelta(days=10)
    assert [offer.version for offer in found.offers] == [1]
    assert not list(field_.publication.glob("*.partial"))


def test_what_is_not_newer_is_refused(field_: Any) -> None:
    field_.publish(2)
    for version in (1, 2):
        with pytest.raises(Refused, match="not newer"):
            field_.publish(version, out="other", gate={"another": True})
    withdraw(field_.publication, 2, "wrong", [field_.key])
    with pytest.raises(Refused, match="withdrawn"):
        add(field_.publication, field_.folder / "bundle-2", [field_.key])
    with pytest.raises(Refused, match="not newer than 2"):
        field_.publish(1)
    with pytest.raises(Refused, match="one name"):
        field_.publish(3, name="another")
    assert index_of(field_).sequence == 2


def test_a_bundle_that_no_device_would_take_is_refused(field_: Any) -> None:
    bundle = field_.bundle(1)
    (bundle / "labels.json").write_text("{}")
    with pytest.raises(Refused, match="HASH"):
        add(field_.publication, bundle, [field_.key])
    with pytest.raises(Refused, match="BAD SIGNATURE"):
        add(field_.publication, field_.bundle(2, keys=[generate_key()]), [field_.key])
    year = datetime.now(UTC) + timedelta(days=400)
    with pytest.raises(Refused, match="EXPIRED"):
        add(field_.publication, field_.bundle(3), [field_.key], now=year)
    with pytest.raises(MissingInput):
        add(field_.publication, field_.folder / "none", [field_.key])
    assert not (field_.publication / "index.sig").exists()


def test_a_folder_of_somebody_else_is_left_alone(field_: Any) -> None:
    field_.publication.mkdir()
    (field_.publication / "thesis.txt").write_text("five years of work")
    with pytest.raises(OutputExists):
        field_.publish(1)
    assert [p.name for p in field_.publication.iterdir()] == ["thesis.txt"]


def test_a_first_try_that_was_cut_off_is_taken_up(
    field_: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collegium.edge import publication

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publication, "index_page", full)
        with pytest.raises(OSError, match="space"):
            field_.publish(1)
    assert not (field_.publication / "index.sig").exists()
    add(field_.publication, field_.folder / "bundle-1", [field_.key])
    assert index_of(field_).sequence == 1


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "bell\x07"])
def test_a_withdrawal_needs_a_reason(field_: Any, reason: str) -> None:
    field_.publish(1)
    with pytest.raises(InvalidInput):
        withdraw(field_.publication, 1, reason, [field_.key])


def test_what_is_not_offered_cannot_be_withdrawn(field_: Any) -> None:
    with pytest.raises(MissingInput, match="no publication"):
        withdraw(field_.publication, 1, "wrong", [field_.key])
    shutil.rmtree(field_.publication)
    field_.publish(1)
    with pytest.raises(MissingInput, match="version 2"):
        withdraw(field_.publication, 2, "wrong", [field_.key])
    withdraw(field_.publication, 1, "wrong", [field_.key])
    with pytest.raises(MissingInput, match="offers none"):
        withdraw(field_.publication, 1, "wrong", [field_.key])


def test_a_stranger_cannot_go_on_and_a_member_can(field_: Any) -> None:
    field_.publish(1)
    member = generate_key()
    with pytest.raises(Refused, match="trusted"):
        withdraw(field_.publication, 1, "wrong", [member])
    trusted = [field_.key.public_key()]
    found = withdraw(field_.publication, 1, "wrong", [member], trusted=trusted)
    assert found.sequence == 2
    bundle = field_.bundle(2)
    with pytest.raises(Refused, match="BAD SIGNATURE"):
        add(field_.publication, bundle, [member], trusted=trusted, threshold=2)
    add(field_.publication, bundle, [member], trusted=trusted)


def test_an_index_that_no_device_could_keep_is_not_signed(
    field_: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from collegium.edge import publication

    field_.publish(1)
    before = {p.name: p.read_bytes() for p in field_.publication.iterdir() if p.is_file()}
    limit = len(before["index.sig"]) + 500  # the true one is half of what a device reads
    monkeypatch.setattr(publication, "MAX_INDEX_BYTES", limit)
    with pytest.raises(Refused, match="shorter reason"):
        withdraw(field_.publication, 1, "\N{BUG}" * 200, [field_.key])
    after = {p.name: p.read_bytes() for p in field_.publication.iterdir() if p.is_file()}
    assert after == before
    assert withdraw(field_.publication, 1, "wrong", [field_.key]).offers == ()


def test_a_bundle_of_the_future_is_refused(field_: Any) -> None:
    today = datetime.now(UTC)
    with pytest.raises(Refused, match="in the future"):
        field_.publish(1, created=today + timedelta(days=3650))
    with pytest.raises(Refused, match="in the future"):
        field_.publish(1, created=today + timedelta(days=1, minutes=5))
    assert not (field_.publication / "index.sig").exists()
    field_.publish(1, created=today + timedelta(hours=23))


class Page(HTMLParser):
    """What a browser would fetch, run or show."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.fetched += [str(value) for name, value in attrs if name in ("src", "action")]
        self.fetched += [str(v) for name, v in attrs if name == "href" and "//" in str(v)]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_escaped_and_fetches_nothing(field_: Any) -> None:
    name = "<script>alert(1)</script>&"
    field_.publish(1, name=name)
    field_.publish(2, name=name)
    withdraw(field_.publication, 1, 'wrong "<img src=x>"', [field_.key])
    page = Page()
    page.feed((field_.publication / "index.html").read_text())
    assert "script" not in page.tags and "img" not in page.tags and page.fetched == []
    assert name in page.text and 'wrong "<img src=x>"' in page.text
    table = json.loads((field_.publication / "index.json").read_text())
    assert (table["name"], table["withdrawn"][0]["version"]) == (name, 1)


def test_the_page_names_what_is_simulated_and_sends_nobody_to_its_own_program(field_: Any) -> None:
    field_.publish(1, simulated=True)
    field_.publish(2)
    refresh(field_.publication, [field_.key])  # who signs anew keeps what was said
    assert [offer.simulated for offer in index_of(field_).offers] == [True, False]
    page = Page()
    page.feed((field_.publication / "index.html").read_text())
    assert page.text.count("simulated: no guarantee") == 1
    assert "SHA-256" in page.text and "by another way than this page" in page.text
    facts = [text for name, text in read_signable(field_.publication).facts if name == "offers"]
    assert [text.endswith("simulated: no guarantee") for text in facts] == [True, False]
    digest = sha256_hex((field_.publication / "device.py").read_bytes())
    assert dict(read_signable(field_.publication).facts)["device.py"] == digest
    assert digest not in page.text  # a page that lies would lie about this, too


def test_signatures_never_make_a_file_too_large_for_devices(field_: Any) -> None:
    bundle = field_.bundle(1)
    outer = json.loads((bundle / "bundle.sig").read_bytes())
    size = (1 << 20) - len(json.dumps(outer, separators=(",", ":"))) - 100
    outer["signatures"].append({"keyid": "k" * size, "sig": ""})
    (bundle / "bundle.sig").write_text(json.dumps(outer, separators=(",", ":")))
    before = (bundle / "bundle.sig").read_bytes()
    with pytest.raises(Refused, match="No device reads more"):
        countersign(read_signable(bundle), generate_key())
    assert (bundle / "bundle.sig").read_bytes() == before


def test_two_of_three_members(field_: Any) -> None:
    second, third = generate_key(), generate_key()
    keys = [field_.key, second, third]
    names = tuple(fingerprint(key.public_key()) for key in keys)
    bundle = field_.bundle(1)
    home = field_.home(keys=names, threshold=2)
    add(field_.publication, bundle, [field_.key])
    with pytest.raises(DeviceError, match="1 of 2"):
        home.pull()
    assert countersign(read_signable(field_.publication), second)
    with pytest.raises(DeviceError, match=r"1 of 2 .* bundle\.sig"):
        home.pull()
    folder = next(field_.publication.glob("v1-*"))
    assert countersign(read_signable(folder / "bundle.sig"), third, [field_.key.public_key()])
    assert home.pull().outcome == "updated" and field_.runs(home) == 1
    assert not countersign(read_signable(folder), third)
    assert read_signable(folder).signers == (names[0], names[2])


def test_nobody_signs_what_differs_from_what_lies_there(field_: Any) -> None:
    bundle = field_.bundle(1)
    facts = dict(read_signable(bundle).facts)
    assert (facts["name"], facts["version"], facts["guarantee"][:2]) == ("pilot", "1", "as")
    (bundle / "weights.bin").write_bytes(b"")
    with pytest.raises(Refused, match="HASH"):
        read_signable(bundle)
    (bundle / "bundle.sig").write_text("{}")
    with pytest.raises(Refused, match="DSSE"):
        read_signable(bundle)
    with pytest.raises(MissingInput):
        read_signable(field_.folder / "none")


def test_a_countersignature_after_a_trusted_one_alone(field_: Any) -> None:
    bundle, member = field_.bundle(1), generate_key()
    with pytest.raises(Refused, match="trusted"):
        countersign(read_signable(bundle), member, [generate_key().public_key()])
    path = bundle / "bundle.sig"
    outer = json.loads(path.read_bytes())
    own = outer["signatures"][0]
    forged = {"keyid": fingerprint(member.public_key()), "sig": own["sig"]}
    named_otherwise = {"keyid": "key of the lab", "sig": base64.b64encode(bytes(64)).decode()}
    outer["signatures"] = [own, own, forged, named_otherwise]
    path.write_text(json.dumps(outer))
    found = read_signable(bundle)
    assert found.signers == (own["keyid"],)
    assert countersign(found, member)
    left = json.loads(path.read_bytes())["signatures"]
    assert [entry["keyid"] for entry in left] == [
        own["keyid"], "key of the lab", forged["keyid"],
    ]  # fmt: skip
    signed_payload(path.read_bytes(), [field_.key.public_key(), member.public_key()], 2)


def test_the_same_input_gives_the_same_index(field_: Any) -> None:
    made = datetime(2026, 3, 1, tzinfo=UTC)
    bundle = field_.bundle(1, created=made)
    folders = [field_.folder / name for name in ("a", "b")]
    for folder in folders:
        add(folder, bundle, [field_.key], now=made)
    files = [{p.name: p.read_bytes() for p in f.iterdir() if p.is_file()} for f in folders]
    assert files[0] == files[1]
    index = parse_index(signed_payload(files[0]["index.sig"], [field_.key.public_key()], 1))
    assert index.sequence == 1


def test_bad_days_and_no_key(field_: Any) -> None:
    bundle: Path = field_.bundle(1)
    with pytest.raises(InvalidInput):
        add(field_.publication, bundle, [field_.key], valid_days=0)
    with pytest.raises(InvalidInput):
        add(field_.publication, bundle, [])
    assert not field_.publication.exists()

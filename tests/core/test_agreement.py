"""Who can make a site believe a plan: only enough pinned members, of as many institutions."""

import base64
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from collegium.core.agreement import (
    PLAN_TYPE,
    ROSTER_TYPE,
    Agreement,
    Member,
    Roster,
    SiteEntry,
    add_signature,
    counted,
    merge_envelopes,
    plan_payload,
    read_envelope,
    unsigned,
    verify_agreement,
)
from collegium.core.errors import InvalidInput, Refused
from collegium.core.forms import text_fault
from collegium.core.plan import ModelRef, Plan, Privacy, Rounds, SiteRef
from collegium.core.plan_federation import Federation
from collegium.core.signing import fingerprint

PLAN = Plan(
    consortium="tests",
    sites=(SiteRef(name="north", public_records=300), SiteRef(name="south", public_records=300)),
    model=ModelRef(name="collegium:glyph-cnn", task="classification", classes=("0", "1")),
    rounds=Rounds(count=3),
    privacy=Privacy(epsilon=2.0, delta=1e-4),
    federation=Federation(address="fl.example.org:8000", coordinator="University X", signatures=2),
)


def key_of(word: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(word.encode().ljust(32, b"."))


def public(word: str) -> str:
    return fingerprint(key_of(word).public_key())


def supernode_key(number: int) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec

    from collegium.core.public_keys import ssh_text

    return ssh_text(ec.derive_private_key(number, ec.SECP384R1()).public_key())


def member(name: str, institution: str = "") -> Member:
    return Member(name=name, institution=institution or f"{name} clinic", public_key=public(name))


ROSTER = Roster(
    consortium="tests",
    plan_sha256=PLAN.digest,
    lab=False,
    coordinator_institution="University X",
    coordinator_key=public("coordinator"),
    address="fl.example.org:8000",
    ca_sha256="sha256:" + "a" * 64,
    apps=("sha256:" + "b" * 64,),
    members=(member("alice"), member("bob"), member("carol"), member("xavier", "University X")),
    sites=tuple(
        SiteEntry(
            name=name,
            institution=f"{name} clinic",
            public_key=public(f"site {name}"),
            supernode_key=supernode_key(number),
        )
        for number, name in enumerate(("north", "south"), start=1)
    ),
)
PINS = (public("alice"), public("bob"), public("carol"))


def signed(payload: bytes, kind: str, names: Sequence[str]) -> bytes:
    envelope = unsigned(payload, kind)
    for name in names:
        envelope = add_signature(envelope, payload, key_of(name), kind)
    return envelope


def check(
    by: Sequence[str] = ("alice", "bob"),
    *,
    roster_by: Sequence[str] | None = None,
    plan: Plan = PLAN,
    signed_plan: Plan | None = None,
    roster: Roster = ROSTER,
    pins: Sequence[str] = PINS,
    needed: int = 2,
    allow_lab: bool = False,
) -> Agreement:
    return verify_agreement(
        plan,
        signed(plan_payload(signed_plan or plan), PLAN_TYPE, by),
        signed(roster.to_bytes(), ROSTER_TYPE, by if roster_by is None else roster_by),
        pins=pins,
        needed=needed,
        allow_lab=allow_lab,
    )


def test_enough_pinned_members_agree() -> None:
    found = check()
    assert found.roster == ROSTER and found.plan == PLAN
    assert found.signers == (public("alice"), public("bob"))
    assert check(["alice", "carol"], roster_by=["carol", "bob"]).signers == (
        public("bob"),
        public("carol"),
    )


LAB = replace(ROSTER, lab=True)
COORDINATORS_FRIENDS = replace(
    ROSTER,
    members=(
        *ROSTER.members,
        Member(name="dora", institution="West clinic", public_key=public("made by x 1")),
        Member(name="emil", institution="East clinic", public_key=public("made by x 2")),
    ),
)
TWO_OF_ONE = replace(
    ROSTER, members=(member("alice", "North Clinic"), member("bob", " north  CLINIC"))
)
RAISED = replace(PLAN, privacy=replace(PLAN.privacy, epsilon=9.0))

HOSTILE: list[tuple[str, dict[str, Any], str]] = [
    ("unsigned", {"by": []}, "0 of 2"),
    ("too few", {"by": ["alice"]}, "1 of 2"),
    ("plan signed, roster not", {"by": ["alice", "bob"], "roster_by": []}, "the roster has too"),
    ("roster signed, plan not", {"by": [], "roster_by": ["alice", "bob"]}, "the plan has too"),
    ("self-signed by the coordinator", {"by": ["coordinator", "alice"]}, "1 of 2"),
    (
        "the coordinator's key pinned by mistake",
        {"by": ["coordinator", "alice"], "pins": (*PINS, public("coordinator"))},
        "1 of 2",
    ),
    (
        "a member of the coordinator's institution, pinned",
        {"by": ["xavier", "alice"], "pins": (*PINS, public("xavier"))},
        "1 of 2",
    ),
    (
        "invented members of other institutions",
        {"by": ["made by x 1", "made by x 2"], "roster": COORDINATORS_FRIENDS},
        "0 of 2",
    ),
    (
        "pinned members who are not in the roster",
        {"roster": replace(ROSTER, members=ROSTER.members[2:])},
        "2 of the 3 pinned keys are no members",
    ),
    ("one member twice", {"by": ["alice", "alice"]}, "1 of 2"),
    ("two members of one institution", {"roster": TWO_OF_ONE}, "1 of 2"),
    ("raised epsilon, old signatures", {"plan": RAISED, "signed_plan": PLAN}, "digest"),
    (
        "raised epsilon in plan and roster, old plan signatures",
        {
            "plan": RAISED,
            "signed_plan": PLAN,
            "roster": replace(ROSTER, plan_sha256=RAISED.digest),
        },
        "not the plan that was signed",
    ),
    ("roster of another plan", {"roster": replace(ROSTER, plan_sha256=RAISED.digest)}, "digest"),
    ("another consortium", {"roster": replace(ROSTER, consortium="others")}, "consortium"),
    ("another site", {"roster": replace(ROSTER, sites=ROSTER.sites[:1])}, "other sites"),
    ("sites in another order", {"roster": replace(ROSTER, sites=ROSTER.sites[::-1])}, "sites"),
    ("another address", {"roster": replace(ROSTER, address="evil.example.org:8000")}, "address"),
    (
        "another coordinator",
        {"roster": replace(ROSTER, coordinator_institution="Evil Ltd")},
        "another coordinator",
    ),
    ("a lab roster at a real site", {"roster": LAB}, "lab roster"),
    ("no signature asked for", {"needed": 0}, "no signature is asked for"),
    ("no signature asked for, none there", {"by": [], "needed": 0, "allow_lab": True}, "asked"),
    (
        "a plan without [federation]",
        {
            "plan": replace(PLAN, federation=None),
            "roster": replace(ROSTER, plan_sha256=replace(PLAN, federation=None).digest),
        },
        "no [federation]",
    ),
]


@pytest.mark.parametrize(
    ("case", "what"), [case[1:] for case in HOSTILE], ids=[case[0] for case in HOSTILE]
)
def test_hostile_words_are_refused(case: dict[str, Any], what: str) -> None:
    with pytest.raises(Refused) as caught:
        check(**case)
    assert what in caught.value.message() and caught.value.exit_code == 77


def test_the_plan_may_name_a_sites_key() -> None:
    north, south = PLAN.sites
    for key, fine in ((ROSTER.sites[0].public_key, True), (public("other"), False)):
        plan = replace(PLAN, sites=(replace(north, public_key=key), south))
        roster = replace(ROSTER, plan_sha256=plan.digest)
        if fine:
            assert check(plan=plan, roster=roster).plan == plan
        else:
            with pytest.raises(Refused, match="another key for north"):
                check(plan=plan, roster=roster)


def test_a_lab_may_go_unsigned_where_it_is_allowed() -> None:
    assert check([], roster=LAB, needed=0, allow_lab=True).signers == ()
    with pytest.raises(Refused, match="0 of 1"):
        check([], roster=LAB, needed=1, allow_lab=True)


def test_a_signature_on_a_plan_is_none_on_a_roster() -> None:
    """DSSE signs the payload's type too: an envelope cannot be relabelled."""
    plan = json.loads(signed(ROSTER.to_bytes(), PLAN_TYPE, ["alice", "bob"]))
    relabelled = json.dumps(plan | {"payloadType": ROSTER_TYPE}).encode()
    good = signed(plan_payload(PLAN), PLAN_TYPE, ["alice", "bob"])
    for envelope, what in ((relabelled, "0 of 2"), (json.dumps(plan).encode(), "does not hold")):
        with pytest.raises(Refused, match=what):
            verify_agreement(PLAN, good, envelope, pins=PINS, needed=2, allow_lab=False)


def test_a_second_spelling_of_a_key_is_no_second_member() -> None:
    """Base64 leaves bits of its last letter unread, so one key has several spellings."""
    head, last = public("alice")[:-2], public("alice")[-2]
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = head + alphabet[alphabet.index(last) ^ 1] + "="
    assert base64.b64decode(other[8:]) == base64.b64decode(public("alice")[8:])
    twin = Member(name="alice2", institution="another", public_key=other)
    with pytest.raises(InvalidInput, match="unusual spelling"):
        Roster.from_bytes(replace(ROSTER, members=(*ROSTER.members, twin)).to_bytes())


# -- envelopes


def test_signing_twice_changes_nothing_and_order_does_not_matter() -> None:
    payload = plan_payload(PLAN)
    once = signed(payload, PLAN_TYPE, ["alice"])
    assert add_signature(once, payload, key_of("alice"), PLAN_TYPE) == once
    assert add_signature(None, payload, key_of("alice"), PLAN_TYPE) == once
    both = signed(payload, PLAN_TYPE, ["alice", "bob"])
    assert both == signed(payload, PLAN_TYPE, ["bob", "alice"])
    assert merge_envelopes(once, signed(payload, PLAN_TYPE, ["bob"]), once) == both
    assert counted(read_envelope(both), ROSTER, PINS) == PINS[:2]


def test_signatures_on_two_payloads_never_share_an_envelope() -> None:
    with pytest.raises(Refused, match="different bytes"):
        add_signature(
            signed(plan_payload(PLAN), PLAN_TYPE, ["alice"]),
            plan_payload(RAISED),
            key_of("bob"),
            PLAN_TYPE,
        )


def test_a_signature_that_does_not_hold_is_left_out() -> None:
    payload = plan_payload(PLAN)
    outer = json.loads(signed(payload, PLAN_TYPE, ["alice", "bob"]))
    outer["signatures"][0]["sig"] = base64.b64encode(b"0" * 64).decode()
    outer["signatures"].append({"keyid": "nobody", "sig": "!"})
    assert len(read_envelope(json.dumps(outer).encode()).signers) == 1


@given(raw=st.binary(max_size=300))
@example(b"[" * 100_000)
@example(b'{"payload":"","payloadType":1,"signatures":[]}')
@example(b'{"payload":1,"payloadType":"a","signatures":[]}')
@example(b'{"payload":"","payloadType":"\\ud800","signatures":[]}')
@example(b'{"payload":"","payloadType":"a","signatures":[1]}')
@example(b'{"payload":"","payloadType":"a","signatures":[{"keyid":"\\ud800","sig":"\\ud800"}]}')
def test_reading_an_envelope_raises_nothing_but_invalid_input(raw: bytes) -> None:
    with suppress(InvalidInput):
        read_envelope(raw)


# -- roster

words = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=30).filter(
    lambda text: not text_fault(text)
)
names = st.from_regex(r"s[a-z0-9]{0,8}x", fullmatch=True)
digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@st.composite
def rosters(draw: st.DrawFn) -> Roster:
    count = draw(st.integers(0, 4))
    sites = draw(st.integers(1, 3))
    seats = draw(st.lists(names, min_size=count, max_size=count, unique=True))
    places = draw(st.lists(names, min_size=sites, max_size=sites, unique=True))
    return Roster(
        consortium=draw(words),
        plan_sha256=draw(digests),
        lab=draw(st.booleans()),
        coordinator_institution=draw(words),
        coordinator_key=public("c"),
        address=draw(st.sampled_from(["a.example:1", "127.0.0.1:8000", "[::1]:65535"])),
        ca_sha256=draw(digests),
        apps=tuple(draw(st.lists(digests, max_size=2, unique=True))),
        members=tuple(
            Member(name=name, institution=draw(words), public_key=public(f"m {name}"))
            for name in seats
        ),
        sites=tuple(
            SiteEntry(
                name=name,
                institution=draw(words),
                public_key=public(f"s {name}"),
                supernode_key=supernode_key(number),
            )
            for number, name in enumerate(places, start=1)
        ),
    )


@given(roster=rosters())
@settings(max_examples=50, deadline=None)
def test_a_roster_reads_back_as_itself(roster: Roster) -> None:
    read = Roster.from_bytes(roster.to_bytes())
    assert read == roster and read.digest == roster.digest


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(json.loads(ROSTER.to_bytes()))), value=json_values)
@settings(max_examples=300, deadline=None)
def test_a_spoilt_roster_raises_nothing_but_invalid_input(key: str, value: object) -> None:
    table = json.loads(ROSTER.to_bytes())
    for spoilt in (
        table | {key: value},
        table | {"sites": [table["sites"][0] | {"name": value}]},
        table | {"members": [table["members"][0] | {"public_key": value}]},
        table | {"sites": [table["sites"][0] | {"supernode_key": value}]},
        table | {"extra": value},
        {name: item for name, item in table.items() if name != key},
        value,
    ):
        raw = json.dumps(spoilt, sort_keys=True, separators=(",", ":")).encode()
        with suppress(InvalidInput):
            assert Roster.from_bytes(raw).to_bytes() == raw


@given(raw=st.binary(max_size=200))
@example(b"[" * 100_000)
@example(b'{"a": ' * 50_000)
@example(b"\xff\xfe")
@example(b"1" * 5000)
def test_any_bytes_raise_nothing_but_invalid_input(raw: bytes) -> None:
    with pytest.raises(InvalidInput):
        Roster.from_bytes(raw)


TWINS = (ROSTER.sites[0], replace(ROSTER.sites[1], supernode_key=supernode_key(1)))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"members": (member("alice"), member("alice"))}, "twice"),
        ({"members": (member("coordinator"),)}, "a key twice"),
        ({"sites": ()}, "no site"),
        ({"sites": TWINS}, "SuperNode key twice"),
        ({"address": "no port"}, "port"),
        ({"consortium": "two\nlines"}, "line break"),
        ({"ca_sha256": "sha256:0"}, "64"),
    ],
)  # fmt: skip
def test_a_roster_that_contradicts_itself(change: dict[str, Any], what: str) -> None:
    with pytest.raises(InvalidInput, match=what):
        Roster.from_bytes(replace(ROSTER, **change).to_bytes())


def test_only_canonical_bytes_are_a_roster() -> None:
    spaced = json.dumps(json.loads(ROSTER.to_bytes())).encode()
    with pytest.raises(InvalidInput, match="canonically"):
        Roster.from_bytes(spaced)


def test_a_site_is_found_by_name() -> None:
    assert ROSTER.site("south") is ROSTER.sites[1]
    with pytest.raises(KeyError):
        ROSTER.site("west")

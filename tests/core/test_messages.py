"""Signed headers: round trips, every kind of lie, and what an unsigned header may say."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.core.messages import (
    DECLINE_CODES,
    MAX_HEADER_BYTES,
    BadMessage,
    Decline,
    Header,
    Hello,
    Invitation,
    Report,
    Sealed,
    Update,
    claimed_site,
)
from collegium.core.signing import generate_key, pae

KEY = generate_key()
HEAD = "sha256:" + "c" * 64
JOB = "0123456789abcdef0123456789abcdef"
INVITATION = Invitation(
    job=JOB, site="north", plan="sha256:p", round=1, attempt=1, base_sha256="sha256:b",
    layout="sha256:l", deadline=12.5, nonce="n", site_ledger_head="sha256:h",
)  # fmt: skip
UPDATE = Update(
    job=JOB, site="north", round=1, attempt=1, base_sha256="sha256:b", layout="sha256:l",
    spec="sha256:s", ledger_head=HEAD, codec="bf16", metrics={"accuracy": 0.5},
)  # fmt: skip
ALL = (
    INVITATION,
    UPDATE,
    Decline(job=JOB, site="north", round=1, attempt=1, code="budget"),
    Hello(job=JOB, site="north", plan="sha256:p", nonce="n", ledger_head=HEAD),
    Report(job=JOB, site="north", model_sha256="sha256:m", metrics={}),
)


def signed(kind: type[Header], values: Any, payload: bytes = b"") -> Sealed:
    """Sign whatever JSON, even what our own code would never write."""
    header = json.dumps(values).encode()
    name = f"application/vnd.collegium.{kind.__name__.lower()}+json"
    return Sealed(header=header, signature=KEY.sign(pae(name, header)), payload=payload)


def code_of(kind: type[Header], sealed: Sealed) -> str:
    """The reason code under which a message is refused."""
    with pytest.raises(BadMessage) as caught:
        kind.open(sealed, KEY.public_key())
    return caught.value.code


@pytest.mark.parametrize("message", ALL, ids=lambda m: type(m).__name__)
def test_round_trip(message: Header) -> None:
    sealed = message.seal(KEY, b"payload")
    opened = type(message).open(sealed, KEY.public_key())
    assert replace(opened, payload_sha256="") == message
    assert sealed == message.seal(KEY, b"payload")  # Ed25519 is deterministic
    assert claimed_site(sealed) == "north"
    assert sealed.size_bytes == len(sealed.header) + 64 + 7


@pytest.mark.parametrize("message", ALL, ids=lambda m: type(m).__name__)
def test_every_field_of_text_is_printable_and_short(message: Header) -> None:
    """What opens can be written again: no peer's text may break the files that it comes into."""
    kind, values = type(message), asdict(message)
    texts = [name for name, value in values.items() if isinstance(value, str) and name != "job"]
    for name in texts:
        for text in ("\ud800", "a\0b", "a\r\nb", "a" * 257):
            assert code_of(kind, signed(kind, values | {name: text})) == "schema"


def test_a_hello_may_be_a_question_without_a_head() -> None:
    question = Hello(job=JOB, site="", plan="sha256:p", nonce="n", ledger_head="")
    assert Hello.open(question.seal(KEY), KEY.public_key()).ledger_head == ""
    for head in ("genesis", "sha256:h", HEAD[:-1]):
        told = asdict(question) | {"ledger_head": head}
        assert code_of(Hello, signed(Hello, told)) == "schema"


@pytest.mark.parametrize("message", ALL, ids=lambda m: type(m).__name__)
def test_one_kind_never_opens_as_another(message: Header) -> None:
    sealed = message.seal(KEY)
    for kind in {type(other) for other in ALL} - {type(message)}:
        assert code_of(kind, sealed) == "signature"


def test_changed_bytes() -> None:
    sealed = UPDATE.seal(KEY, b"payload")
    assert code_of(Update, replace(sealed, header=sealed.header + b" ")) == "signature"
    assert code_of(Update, replace(sealed, signature=b"\0" * 64)) == "signature"
    assert code_of(Update, replace(sealed, signature=b"")) == "signature"
    assert code_of(Update, replace(sealed, payload=b"Payload")) == "payload"
    with pytest.raises(BadMessage):
        Update.open(sealed, generate_key().public_key())


def test_long_headers_are_not_even_verified() -> None:
    sealed = Sealed(header=b" " * (MAX_HEADER_BYTES + 1), signature=b"")
    assert code_of(Update, sealed) == "header"
    assert claimed_site(sealed) == ""


def test_no_field_is_a_seed() -> None:
    for message in ALL:
        assert not [name for name in asdict(message) if "seed" in name or "key" in name]


VALUES = asdict(UPDATE)


@pytest.mark.parametrize(
    "values",
    [
        None, [], "text", 7, {},
        VALUES | {"more": 1},
        {name: value for name, value in VALUES.items() if name != "round"},
        VALUES | {"round": "1"}, VALUES | {"round": 1.0}, VALUES | {"round": True},
        VALUES | {"round": None}, VALUES | {"site": 1}, VALUES | {"metrics": []},
        VALUES | {"metrics": {"accuracy": "high"}}, VALUES | {"metrics": {"accuracy": True}},
        VALUES | {"metrics": {"accuracy": float("nan")}},
        VALUES | {"metrics": {"accuracy": float("inf")}},
        VALUES | {"metrics": {"accuracy": 10**400}},
        VALUES | {"job": "../../outside"}, VALUES | {"job": ""}, VALUES | {"job": "a/b"},
        VALUES | {"job": "a" * 200}, VALUES | {"job": "a\0b"},
        VALUES | {"ledger_head": "\ud800"}, VALUES | {"ledger_head": ""},
        VALUES | {"ledger_head": HEAD + "0"}, VALUES | {"ledger_head": HEAD.upper()},
        VALUES | {"codec": "\ud800"}, VALUES | {"spec": "a\nb"}, VALUES | {"spec": "a\x1b[2J"},
        VALUES | {"layout": "a" * 257}, VALUES | {"base_sha256": "\u202e"},
        VALUES | {"metrics": {"\ud800": 0.5}}, VALUES | {"metrics": {"a\nb": 0.5}},
        VALUES | {"metrics": {"a" * 65: 0.5}},
        VALUES | {"metrics": {f"m{number}": 0.5 for number in range(33)}},
    ],
)  # fmt: skip
def test_signed_rubbish_is_refused_by_schema(values: Any) -> None:
    assert code_of(Update, signed(Update, values)) == "schema"


@pytest.mark.parametrize("header", [b"", b"{", b"\xff\xfe", b"[" * 9000, b'{"a": NaN', b"9" * 9000])
def test_signed_bytes_that_are_no_json(header: bytes) -> None:
    name = "application/vnd.collegium.update+json"
    sealed = Sealed(header=header, signature=KEY.sign(pae(name, header)))
    assert code_of(Update, sealed) == "schema"
    assert claimed_site(sealed) == ""


@pytest.mark.parametrize("deadline", [float("nan"), float("inf"), -float("inf"), 10**400])
def test_a_deadline_is_a_finite_number(deadline: float) -> None:
    values = asdict(INVITATION) | {"deadline": deadline}
    assert code_of(Invitation, signed(Invitation, values)) == "schema"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@given(changes=st.dictionaries(st.sampled_from([*VALUES, "more"]), JSON, min_size=1, max_size=3))
@settings(max_examples=300)
def test_schema_fuzz(changes: dict[str, Any]) -> None:
    """Any signed object either opens to the exact types or is refused: never another error."""
    values = VALUES | changes
    try:
        opened = Update.open(signed(Update, values), KEY.public_key())
    except BadMessage as error:
        assert error.code in {"schema", "payload"}
        return
    assert type(opened.round) is int
    assert all(abs(value) < float("inf") for value in opened.metrics.values())
    json.dumps(asdict(opened), ensure_ascii=False).encode()  # as our own files write it


@given(st.binary(max_size=200))
def test_claimed_site_of_any_bytes(header: bytes) -> None:
    assert isinstance(claimed_site(Sealed(header=header, signature=b"")), str)


def test_declines_speak_a_closed_list() -> None:
    assert "ok" not in DECLINE_CODES
    for code in DECLINE_CODES:
        decline = Decline(job=JOB, site="north", round=1, attempt=1, code=code)
        assert Decline.open(decline.seal(KEY), KEY.public_key()).code == code
    forged = asdict(Decline(job=JOB, site="north", round=1, attempt=1, code="budget"))
    for code in ("ok", "", "patient 4711 has no label"):
        assert code_of(Decline, signed(Decline, forged | {"code": code})) == "schema"

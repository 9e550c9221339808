"""The roster: which keys belong to which institution, and what the sites may run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self, cast

from . import forms
from .digest import canonical_bytes, digest_of
from .errors import InvalidInput
from .public_keys import ecdsa_key_fault, ed25519_key_fault

MAX_BYTES = 4 * 1024 * 1024
_SCHEMA = 1
_Fault = Callable[[str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One who signs for an institution; ``public_key`` is an ``ed25519:`` fingerprint."""

    name: str
    institution: str
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteEntry:
    """A site's own keys; ``supernode_key`` is OpenSSH text of its ECDSA P-384 public key."""

    name: str
    institution: str
    public_key: str
    supernode_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """What members sign beside the plan: all keys, the CA's digest and the allowed app bundles.

    ``apps`` are ``sha256:`` digests of Flower app bundles; ``ca_sha256`` is that of ca.crt's
    bytes; ``sites`` stand in the plan's order. A ``lab`` roster's keys were all made in one place.
    """

    consortium: str
    plan_sha256: str
    lab: bool
    coordinator_institution: str
    coordinator_key: str
    address: str
    ca_sha256: str
    apps: tuple[str, ...]
    members: tuple[Member, ...]
    sites: tuple[SiteEntry, ...]

    def to_bytes(self) -> bytes:
        """Return the canonical JSON that members sign."""
        return canonical_bytes({"schema": _SCHEMA, **asdict(self)})

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """Return the roster of canonical bytes; raises ``InvalidInput``, whatever the bytes are."""
        if len(raw) > MAX_BYTES:
            raise _broken(f"has more than {MAX_BYTES // 1024**2} MiB")
        try:
            table = _table(json.loads(raw), ("schema", *cls.__dataclass_fields__), "the roster")
        except (ValueError, RecursionError):
            raise _broken("is not JSON") from None
        if type(table["schema"]) is not int or table["schema"] != _SCHEMA:
            raise _broken("has another format than 1")
        if type(table["lab"]) is not bool:
            raise _broken("says neither true nor false for lab")
        words = {name: _text(table, name, fault) for name, fault in _WORDS.items()}
        found = cls(
            **words,
            lab=table["lab"],
            apps=tuple(_app(entry) for entry in _entries(table, "apps")),
            members=tuple(Member(**_entry(e, _MEMBER)) for e in _entries(table, "members")),
            sites=tuple(SiteEntry(**_entry(e, _SITE)) for e in _entries(table, "sites")),
        )
        for fault in _repeated(found):
            raise _broken(fault)
        if found.to_bytes() != raw:
            raise _broken("is not written canonically, so its digest would not be its own")
        return found

    @property
    def digest(self) -> str:
        """Return the roster's own name: ``sha256:`` of its canonical form."""
        return digest_of("collegium/roster/1", {"schema": _SCHEMA, **asdict(self)})

    def site(self, name: str) -> SiteEntry:
        """Return the entry of that site; raises ``KeyError`` when there is none."""
        for entry in self.sites:
            if entry.name == name:
                return entry
        raise KeyError(name)


def same_institution(one: str, other: str) -> bool:
    """Return whether two names mean one institution: case, width and spaces do not count."""
    return forms.folded(one) == forms.folded(other)


_MEMBER: Mapping[str, _Fault] = {
    "name": forms.name_fault,
    "institution": forms.text_fault,
    "public_key": ed25519_key_fault,
}
_SITE: Mapping[str, _Fault] = {**_MEMBER, "supernode_key": ecdsa_key_fault}
_WORDS: Mapping[str, _Fault] = {
    "consortium": forms.text_fault,
    "plan_sha256": forms.digest_fault,
    "coordinator_institution": forms.text_fault,
    "coordinator_key": ed25519_key_fault,
    "address": forms.address_fault,
    "ca_sha256": forms.digest_fault,
}


def _table(value: object, keys: tuple[str, ...], what: str) -> dict[str, Any]:
    if not isinstance(value, dict) or set(cast("dict[str, Any]", value)) != set(keys):
        raise _broken(f"must have exactly these keys in {what}: {', '.join(keys)}")
    return cast("dict[str, Any]", value)


def _entries(table: Mapping[str, Any], name: str) -> list[object]:
    if not isinstance(table[name], list):
        raise _broken(f"has no list in {name}")
    return cast("list[object]", table[name])


def _entry(value: object, words: Mapping[str, _Fault]) -> dict[str, str]:
    table = _table(value, tuple(words), "each member and site")
    return {name: _text(table, name, fault) for name, fault in words.items()}


def _app(value: object) -> str:
    return _text({"apps": value}, "apps", forms.digest_fault)


def _text(table: Mapping[str, Any], name: str, fault: _Fault) -> str:
    value = table[name]
    why = fault(value) if isinstance(value, str) and _encodable(value) else "is not a text"
    if why:
        raise _broken(f"holds a value in {name} that {why}")
    return cast("str", value)


def _encodable(value: str) -> bool:
    """JSON can spell half a surrogate pair, which no canonical bytes exist for."""
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _repeated(roster: Roster) -> Iterator[str]:
    """One name is one party, and one key is one party: whatever role it has."""
    for what, values in (
        ("a member's name", [member.name for member in roster.members]),
        ("a site's name", [site.name for site in roster.sites]),
        ("an app", list(roster.apps)),
        ("a SuperNode key", [site.supernode_key for site in roster.sites]),
        (
            "a key",
            [
                roster.coordinator_key,
                *(member.public_key for member in roster.members),
                *(site.public_key for site in roster.sites),
            ],
        ),
    ):
        if len(set(values)) < len(values):
            yield f"has {what} twice"
    if not roster.sites:
        yield "has no site"


def _broken(why: str) -> InvalidInput:
    return InvalidInput(
        "this is not a roster",
        why=f"it {why}",
        cure="ask the coordinator for the kit again; `collegium provision` writes rosters",
    )

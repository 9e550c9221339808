"""What a member or a site hands to the coordinator: public keys, and proof of holding them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from . import forms
from .digest import canonical_bytes
from .errors import InvalidInput
from .public_keys import ecdsa_from_ssh, ecdsa_key_fault, ed25519_key_fault, ssh_text
from .signing import fingerprint, pae, public_from_fingerprint, verify

SUFFIX = ".request.json"
MAX_BYTES = 64 * 1024
_TYPE = "application/vnd.collegium.request+json"
_HASH = ec.ECDSA(hashes.SHA384())


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRequest:
    """One who will sign for an institution asks to stand on the roster."""

    name: str
    institution: str
    public_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteRequest:
    """A site asks to stand on the roster, with the key that signs and the key that connects."""

    name: str
    institution: str
    public_key: str
    supernode_key: str


Request = MemberRequest | SiteRequest


def member_request(name: str, institution: str, key: Ed25519PrivateKey) -> bytes:
    """Return a member's self-signed request; raises ``InvalidInput`` for a wrong name."""
    public = fingerprint(key.public_key())
    return _sealed(MemberRequest(name=name, institution=institution, public_key=public), key)


def site_request(
    name: str, institution: str, key: Ed25519PrivateKey, supernode: ec.EllipticCurvePrivateKey
) -> bytes:
    """Return a site's request, signed by both of its keys; raises ``InvalidInput``."""
    request = SiteRequest(
        name=name,
        institution=institution,
        public_key=fingerprint(key.public_key()),
        supernode_key=ssh_text(supernode.public_key()),
    )
    return _sealed(request, key, supernode)


def read_request(raw: bytes) -> Request:
    """Return a request once every key in it has proved itself; raises ``InvalidInput``."""
    if len(raw) > MAX_BYTES:
        raise _broken(f"it has more than {MAX_BYTES // 1024} KiB")
    try:
        found: Any = json.loads(raw)
    except (ValueError, RecursionError):
        raise _broken("it is not JSON") from None
    kind = _KINDS.get(str(found.get("kind"))) if isinstance(found, dict) else None
    if kind is None:
        raise _broken("it says neither member nor site")
    words = _WORDS[kind]
    proofs = _PROOFS[kind]
    if set(found) != {"kind", "schema", *words, *proofs} or found["schema"] != 1:
        raise _broken("its keys are not those of format 1")
    table = cast("dict[str, Any]", found)
    request = kind(**{name: _text(table, name, fault) for name, fault in words.items()})
    _require_proofs(request, {name: _proof(table[name]) for name in proofs})
    return request


def _sealed(
    request: Request, key: Ed25519PrivateKey, supernode: ec.EllipticCurvePrivateKey | None = None
) -> bytes:
    for name, fault in _WORDS[type(request)].items():
        _text(asdict(request), name, fault)
    message = _message(request)
    table = _fields(request) | {"proof": _base64(key.sign(message))}
    if supernode is not None:
        table["supernode_proof"] = _base64(supernode.sign(message, _HASH))
    return json.dumps(table, indent=2, ensure_ascii=False).encode() + b"\n"


def _fields(request: Request) -> dict[str, Any]:
    kind = next(name for name, cls in _KINDS.items() if isinstance(request, cls))
    return {"schema": 1, "kind": kind, **asdict(request)}


def _message(request: Request) -> bytes:
    return pae(_TYPE, canonical_bytes(_fields(request)))


def _require_proofs(request: Request, proofs: Mapping[str, bytes]) -> None:
    message = _message(request)
    if not verify(public_from_fingerprint(request.public_key), proofs["proof"], message):
        raise _broken("its signing key has not signed it, or it was changed since")
    if isinstance(request, SiteRequest):
        try:
            ecdsa_from_ssh(request.supernode_key).verify(proofs["supernode_proof"], message, _HASH)
        except InvalidSignature:
            raise _broken("its SuperNode key has not signed it, or it was changed since") from None


def _text(table: Mapping[str, Any], name: str, fault: Callable[[str], str]) -> str:
    value = table[name]
    why = fault(value) if isinstance(value, str) else "is not a text"
    if not why and not str(value).isprintable():
        why = "cannot be printed"
    if why:
        raise _broken(f"its {name.replace('_', ' ')} {why}")
    return cast("str", value)


def _proof(value: object) -> bytes:
    try:
        return base64.b64decode(cast("str", value), validate=True)
    except (ValueError, TypeError):
        raise _broken("a signature in it is not base64") from None


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


def _broken(why: str) -> InvalidInput:
    return InvalidInput(
        "this is not a request",
        why=why,
        cure="ask its owner to enroll again (`consortium enroll`, `site enroll`)",
    )


_MEMBER: Mapping[str, Callable[[str], str]] = {
    "name": forms.name_fault,
    "institution": forms.text_fault,
    "public_key": ed25519_key_fault,
}
_KINDS: Mapping[str, type[MemberRequest] | type[SiteRequest]] = {
    "member": MemberRequest,
    "site": SiteRequest,
}
_WORDS: Mapping[type, Mapping[str, Callable[[str], str]]] = {
    MemberRequest: _MEMBER,
    SiteRequest: {**_MEMBER, "supernode_key": ecdsa_key_fault},
}
_PROOFS: Mapping[type, tuple[str, ...]] = {
    MemberRequest: ("proof",),
    SiteRequest: ("proof", "supernode_proof"),
}

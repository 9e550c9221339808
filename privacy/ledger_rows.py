"""One row of a ledger: its kinds, canonical body, hash, and the chain that rows form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..core.digest import canonical_bytes, sha256_hex
from ..core.errors import InvalidInput, LedgerTampered
from ..core.mechanism import Budget, MechanismSpec
from ..core.signing import fingerprint, public_from_fingerprint

Kind = Literal[
    "genesis", "policy", "reserve", "commit", "abort", "release", "witness", "key-rotate"
]
Row = tuple[int, str, str, str, bytes]
"""A raw row: seq, prev, body, hash, signature."""

GENESIS_HEAD = "sha256:" + "0" * 64
DOMAIN = b"collegium/ledger/2"
ROTATE = b"collegium/ledger-rotate/1"

_COMMON = ("kind", "at", "asset")
FIELDS: Mapping[Kind, tuple[str, ...]] = MappingProxyType(
    {
        "genesis": ("budget", "public_key", "records"),
        "policy": ("budget", "records", "note"),
        "reserve": (
            "job", "round", "attempt", "plan", "base_sha256", "spec", "steps", "claim",
            "versions", "rng",
        ),
        "commit": ("job", "round", "attempt", "steps", "update_sha256"),
        "abort": ("job", "round", "attempt", "note"),
        "release": ("job", "round", "model_sha256", "note"),
        "witness": ("evidence",),
        "key-rotate": ("public_key", "proof"),
    }
)  # fmt: skip
"""What the body of each kind holds beside kind, time and asset: exactly this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a reserve says the asset has spent with it: never trusted, always recomputed.

    ``method`` is ``pld`` or ``rdp`` for one plan, ``renyi-filter`` across plans; ``interval``
    is the discretization of the privacy loss (0 where there is none).
    """

    epsilon: float
    method: str
    interval: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Witness:
    """A head of this ledger that a peer signed: its key, the signed bytes (hex), its signature."""

    head: str
    key: str
    message: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEntry:
    """One row; a kind uses the fields that ``FIELDS`` names, the others stay empty.

    ``at`` is seconds since the epoch; ``steps`` are the noisy steps that a reserve charges or a
    commit executed; ``plan`` is the digest of the signed plan; ``base_sha256`` the model that a
    reserve starts from; ``update_sha256`` names the bytes that were made of it; ``records`` is a
    fingerprint; ``proof`` is a new key's own signature.
    """

    seq: int
    prev: str
    at: float
    asset: str
    kind: Kind
    job: str = ""
    round: int = 0
    attempt: int = 0
    plan: str = ""
    base_sha256: str = ""
    spec: MechanismSpec | None = None
    steps: int = 0
    claim: Claim | None = None
    versions: dict[str, str] = field(default_factory=dict[str, str])
    rng: str = ""
    update_sha256: str = ""
    model_sha256: str = ""
    budget: Budget | None = None
    records: str = ""
    note: str = ""
    public_key: str = ""
    proof: str = ""
    evidence: Witness | None = None
    hash: str = ""
    signature: bytes = b""


def row_hash(seq: int, prev: str, body: bytes) -> str:
    """Return SHA-256 over the length-prefixed domain, seq, the hash before, and the body."""
    return sha256_hex(
        len(DOMAIN).to_bytes(4, "big"), DOMAIN, seq.to_bytes(8, "big"), prev.encode(), body
    )


def rotation_message(asset: str, seq: int, prev: str, public_key: str) -> bytes:
    """Return what a new key signs to take over from entry ``seq`` on."""
    values = {"asset": asset, "seq": seq, "prev": prev, "public_key": public_key}
    return len(ROTATE).to_bytes(4, "big") + ROTATE + canonical_bytes(values)


def body_of(entry: LedgerEntry) -> bytes:
    """Return the canonical JSON body of an entry: what its hash covers beside seq and prev."""
    values = asdict(entry)
    return canonical_bytes({name: values[name] for name in (*_COMMON, *FIELDS[entry.kind])})


def entry_of(row: Row) -> LedgerEntry:
    """Return the entry that a raw row spells; raises ``LedgerTampered`` for any other body."""
    seq, prev, body, digest, signature = row
    try:
        values = cast(dict[str, Any], json.loads(body))
        if body.encode() != canonical_bytes(values) or values["kind"] not in FIELDS:
            raise ValueError
        if set(values) != {*_COMMON, *FIELDS[values["kind"]]}:
            raise ValueError
        if not all(_FORMS[name](value) for name, value in values.items()):
            raise ValueError
        for name, kind in _NESTED.items():
            if values.get(name) is not None:
                values[name] = kind(**values[name])
        entry = LedgerEntry(seq=seq, prev=prev, hash=digest, signature=signature, **values)
        _complete(entry)
    except (ValueError, KeyError, TypeError, RecursionError, InvalidInput):
        raise LedgerTampered(
            f"ledger entry {seq} is well hashed but is no entry of this version",
            why="another program wrote it, or it was forged without the site's key",
            cure="verify the ledger with the site's public key",
        ) from None
    return entry


def verify_chain(rows: Sequence[Row], key: Ed25519PublicKey | None) -> list[LedgerEntry]:
    """Return the entries once sequence, chain and (with a key) every signature hold.

    ``key`` is the site's present key: each row must be signed by the key in force, from the
    first entry's over every rotation, and the last of these must be ``key``. Raises
    ``LedgerTampered`` naming the first entry that does not hold.
    """
    entries: list[LedgerEntry] = []
    head = GENESIS_HEAD
    for expected, row in enumerate(rows):
        seq, prev, body, digest, _ = row
        if not _well_typed(row) or seq != expected or prev != head:
            raise _broken(expected)
        if digest != row_hash(seq, prev, body.encode()):
            raise _broken(expected)
        entries.append(entry_of(row))
        head = digest
    if entries and entries[0].kind != "genesis":
        raise _broken(0)
    if key is not None and entries:
        signer = _check_signatures(entries)
        if signer != fingerprint(key):
            raise LedgerTampered(
                "the ledger's newest entry is not signed by this site's key",
                why=f"it is signed by {signer}",
                cure="open the ledger with the key that is in force; ask the site itself whether"
                " it changed its key",
            )
    return entries


def signers(entries: Sequence[LedgerEntry]) -> list[str]:
    """Return every key that the ledger names as its own, the one in force last."""
    return [entry.public_key for entry in entries if entry.kind in ("genesis", "key-rotate")]


def signer_of(entries: Sequence[LedgerEntry], seq: int) -> str:
    """Return the fingerprint of the key that must have signed entry ``seq``."""
    return signers(entries[: max(seq, 1)])[-1]


def _check_signatures(entries: Sequence[LedgerEntry]) -> str:
    """Return the key in force after the last entry; every row is signed by the one before it."""
    signer = entries[0].public_key
    public = public_from_fingerprint(signer)
    for entry in entries:
        _check_signature(entry, public, entry.signature, entry.hash.encode())
        if entry.kind == "key-rotate":
            signer = entry.public_key
            public = public_from_fingerprint(signer)
            message = rotation_message(entry.asset, entry.seq, entry.prev, signer)
            _check_signature(entry, public, bytes.fromhex(entry.proof), message)
    return signer


def _check_signature(
    entry: LedgerEntry, public: Ed25519PublicKey, signature: bytes, message: bytes
) -> None:
    try:
        public.verify(signature, message)
    except InvalidSignature:
        raise LedgerTampered(
            f"ledger entry {entry.seq} is not signed by the key in force",
            why="another key wrote it",
            cure="restore the ledger from its backup and compare it with the anchor",
        ) from None


def _broken(seq: int) -> LedgerTampered:
    return LedgerTampered(
        f"ledger entry {seq} does not follow from the one before it",
        why="an entry was edited, removed or inserted",
        cure="restore the ledger from its backup and compare it with the anchor",
    )


def _well_typed(row: Row) -> bool:
    """A table without STRICT can hold anything in any column."""
    kinds = (int, str, str, str, bytes)
    return all(type(value) is kind for value, kind in zip(row, kinds, strict=True))


def _complete(entry: LedgerEntry) -> None:
    """Raise ``ValueError`` where a kind lacks what it exists for."""
    needs = {"genesis": "budget", "reserve": "spec", "witness": "evidence"}
    if entry.kind in needs and getattr(entry, needs[entry.kind]) is None:
        raise ValueError(entry.kind)
    if entry.kind == "reserve" and entry.claim is None:
        raise ValueError(entry.kind)
    if entry.public_key:
        public_from_fingerprint(entry.public_key)
    elif entry.kind in ("genesis", "key-rotate"):
        raise ValueError(entry.kind)
    bytes.fromhex(entry.proof)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_text, (*value, *value.values())))


_FORM_OF_TYPE: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {"float": _is_number, "int": _is_count, "str": _is_text}
)


def _like(kind: type[Any], *, optional: bool = True) -> Callable[[Any], bool]:
    """Return a check that a value holds exactly a dataclass's fields, each of its type."""
    forms = {item.name: _FORM_OF_TYPE.get(str(item.type), _is_text) for item in fields(kind)}

    def holds(value: Any) -> bool:
        if value is None:
            return optional
        return (
            isinstance(value, dict)
            and set(value) == set(forms)
            and all(forms[name](found) for name, found in value.items())
        )

    return holds


_NESTED: Mapping[str, type[Any]] = MappingProxyType(
    {"spec": MechanismSpec, "budget": Budget, "claim": Claim, "evidence": Witness}
)
_FORMS: Mapping[str, Callable[[Any], bool]] = MappingProxyType(
    {
        **{item.name: _FORM_OF_TYPE.get(str(item.type), _is_text) for item in fields(LedgerEntry)},
        **{name: _like(kind) for name, kind in _NESTED.items()},
        "kind": lambda value: value in get_args(Kind),
        "versions": _is_texts,
    }
)

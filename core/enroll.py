"""Make keys where they are used, and the request that carries their public halves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .errors import InvalidInput, OutputExists
from .files import write_atomic
from .public_keys import load_ssh_private, require_private, ssh_text
from .requests import SUFFIX, SiteRequest, member_request, read_request, site_request
from .signing import fingerprint, generate_key, load_or_create

MEMBER_KEY = "member.pem"
SIGNING_KEY = "signing.pem"
SUPERNODE_KEY = "supernode.key"
SUPERNODE_PUBLIC = "supernode.pub"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """Where the keys and the request are; ``fingerprint`` is what is told by telephone."""

    request: Path
    private: tuple[Path, ...]
    fingerprint: str


def enroll_member(name: str, institution: str, folder: Path) -> Enrolled:
    """Write a member's key (0600) and its request; a key that is there is kept.

    A request of another key is kept under another name. Raises ``OutputExists`` when the request
    is there already, ``InvalidInput`` for a name that is none, ``Refused`` for a key that others
    can read.
    """
    key_path = folder / MEMBER_KEY
    path = _request_path(name, institution, key_path)
    key = load_or_create(key_path)
    require_private(key_path)
    _write_request(path, member_request(name, institution, key))
    return Enrolled(request=path, private=(key_path,), fingerprint=fingerprint(key.public_key()))


def enroll_site(name: str, institution: str, folder: Path) -> Enrolled:
    """Write a site's two keys (0600) and its request; keys that are there are kept.

    A request of other keys (after a rotation) is kept under another name. Raises
    ``OutputExists`` when the request is there already, ``InvalidInput`` for a name that is none,
    ``Refused`` for a key that others can read.
    """
    path = _request_path(name, institution, folder / SIGNING_KEY)
    key, supernode = ensure_site_keys(folder)
    _write_request(path, site_request(name, institution, key, supernode))
    return Enrolled(
        request=path,
        private=(folder / SIGNING_KEY, folder / SUPERNODE_KEY),
        fingerprint=fingerprint(key.public_key()),
    )


def ensure_site_keys(folder: Path) -> tuple[Ed25519PrivateKey, ec.EllipticCurvePrivateKey]:
    """Return a site's two keys, made in ``folder`` (0600) where there are none yet.

    Raises ``InvalidInput`` for files that are no such keys, ``Refused`` for open ones.
    """
    key_path, supernode_path = folder / SIGNING_KEY, folder / SUPERNODE_KEY
    key = load_or_create(key_path)
    if not supernode_path.exists():
        write_atomic(supernode_path, _openssh(ec.generate_private_key(ec.SECP384R1())), mode=0o600)
    for path in (key_path, supernode_path):
        require_private(path)
    supernode = load_ssh_private(supernode_path)
    write_atomic(folder / SUPERNODE_PUBLIC, f"{ssh_text(supernode.public_key())}\n".encode())
    return key, supernode


def _request_path(name: str, institution: str, key: Path) -> Path:
    """Return where the request will be; the words are checked before any key is made.

    Raises ``OutputExists`` for a request whose key is not there any more: a new key in its place
    could never open what the old one signed.
    """
    member_request(name, institution, generate_key())
    path = key.parent / f"{name}{SUFFIX}"
    if path.exists() and not key.exists():
        raise OutputExists(
            f"{path} exists, and {key.name} beside it does not",
            why="that key may be on a roster and may have signed a ledger",
            cure=f"restore {key.name} from your off-line copy; without one, name another folder",
        )
    key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _write_request(path: Path, request: bytes) -> None:
    """Write a request; one of other keys is moved to ``.old``, one of these raises."""
    if path.exists():
        if _keys_of(path.read_bytes()) == _keys_of(request):
            raise OutputExists(
                f"{path} exists already",
                why="its keys may be on a roster, so enroll neither changes nor repeats them",
                cure="send that file; `collegium site approve SITE.toml --rotate-keys` makes a new "
                "signing key, and enroll then writes a new request",
            )
        old, number = path.with_name(f"{path.name}.old"), 1
        while old.exists():
            number += 1
            old = path.with_name(f"{path.name}.old.{number}")
        path.rename(old)
    write_atomic(path, request)


def _keys_of(raw: bytes) -> tuple[str, ...]:
    """Return the public keys of a request, () for what is none."""
    try:
        request = read_request(raw)
    except InvalidInput:
        return ()
    more = (request.supernode_key,) if isinstance(request, SiteRequest) else ()
    return (request.public_key, *more)


def _openssh(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    )

"""A site's new signing key: the ledger hands over, the files follow, a crash loses neither."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import InvalidInput, MissingInput
from ..core.files import sync_folder
from ..core.signing import fingerprint, generate_key, load_private, save_private
from ..privacy.ledger import Ledger
from ..privacy.ledger_rows import signers, verify_chain
from ..privacy.ledger_store import open_readonly, read_rows

KEY = "signing.pem"
_NEXT = "signing.pem.next"
_OLD = "signing.pem.old"
_UNUSED = "signing.pem.unused"
_CURE = (
    f"restore the ledger that [ledger] path names from its backup, then start again; remove "
    f"neither {KEY} nor {_NEXT}"
)


def rotate_key(ledger: Ledger, keys: Path) -> str:
    """Make a new signing key, hand the ledger over, keep the old key; return the fingerprint.

    The order makes a crash harmless: the new key is on disk before the ledger names it, and
    ``complete_rotation`` finishes the renames. No key is ever removed. One rotation at a time:
    the caller holds a lock.
    """
    _set_aside(keys)  # of a rotation that this ledger, open under its own key, never saw
    new = generate_key()
    save_private(new, keys / _NEXT)
    ledger.rotate(new)
    _rename(keys)
    return fingerprint(new.public_key())


def complete_rotation(keys: Path, ledger: Path) -> bool:
    """Finish a rotation that a crash cut short; return whether there was one to finish.

    A key that the ledger never heard of is kept under another name. Raises ``MissingInput``,
    ``InvalidInput`` or the ledger's own errors, and touches nothing, when the ledger cannot be
    read: it alone knows which key is in force.
    """
    if not (keys / _NEXT).is_file():
        return False
    if _signer_of(ledger) != fingerprint(load_private(keys / _NEXT).public_key()):
        _set_aside(keys)
        return False
    _rename(keys)
    return True


def _signer_of(path: Path) -> str:
    """Return the fingerprint of the key that a ledger has in force."""
    what = "a key rotation was cut short, and the ledger that knows the key in force is not "
    try:
        with open_readonly(path) as connection:
            named = signers(verify_chain(read_rows(connection), None))
    except MissingInput:
        raise MissingInput(f"{what}there", cure=_CURE) from None
    except InvalidInput as error:
        raise InvalidInput(f"{what}readable", why=error.what, cure=_CURE) from None
    if not named:
        raise InvalidInput(f"{what}begun: it has no entry", cure=_CURE)
    return named[-1]


def _rename(keys: Path) -> None:
    if (keys / KEY).is_file():
        (keys / KEY).rename(_free(keys, _OLD))
    (keys / _NEXT).rename(keys / KEY)
    sync_folder(keys)


def _set_aside(keys: Path) -> None:
    """Keep a next key that is not in force under a name that nothing reads."""
    if (keys / _NEXT).exists():
        (keys / _NEXT).rename(_free(keys, f"{_UNUSED}.1"))
        sync_folder(keys)


def _free(keys: Path, name: str) -> Path:
    """Return ``name``, or the first of ``STEM.2``, ``STEM.3``, ... that no file has."""
    path, number = keys / name, 1
    stem = name.removesuffix(".1")
    while path.exists():
        number += 1
        path = keys / f"{stem}.{number}"
    return path

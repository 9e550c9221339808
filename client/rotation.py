"""A site's new signing key: the ledger hands over, the files follow, a crash loses neither."""

from __future__ import annotations

from contextlib import suppress
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


def rotate_key(ledger: Ledger, keys: Path) -> str:
    """Make a new signing key, hand the ledger over, keep the old key; return the fingerprint.

    The order makes a crash harmless: the new key is on disk before the ledger names it, and
    ``complete_rotation`` finishes the renames.
    """
    (keys / _NEXT).unlink(missing_ok=True)  # of a rotation that the ledger never saw
    new = generate_key()
    save_private(new, keys / _NEXT)
    ledger.rotate(new)
    _rename(keys)
    return fingerprint(new.public_key())


def complete_rotation(keys: Path, ledger: Path) -> bool:
    """Finish a rotation that a crash cut short; return whether there was one to finish."""
    if not (keys / _NEXT).is_file():
        return False
    if _signer_of(ledger) != fingerprint(load_private(keys / _NEXT).public_key()):
        (keys / _NEXT).unlink()  # the ledger never heard of it
        return False
    _rename(keys)
    return True


def _signer_of(path: Path) -> str:
    """Return the fingerprint of the key that a ledger has in force, '' without a ledger."""
    with suppress(MissingInput, InvalidInput), open_readonly(path) as connection:
        return signers(verify_chain(read_rows(connection), None))[-1]
    return ""


def _rename(keys: Path) -> None:
    if (keys / KEY).is_file():
        number = 1
        while (old := keys / (_OLD if number == 1 else f"{_OLD}.{number}")).exists():
            number += 1
        (keys / KEY).rename(old)
    (keys / _NEXT).rename(keys / KEY)
    sync_folder(keys)

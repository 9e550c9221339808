"""``collegium edge device | index | withdraw | sign``: what a publisher does for devices."""

from __future__ import annotations

import errno
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..core.errors import MissingInput, OutputExists
from .asking import ask_to_sign
from .verbs import example

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

    from ..edge.countersign import Signable
    from ..edge.device.index import Index

F = TypeVar("F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path)


def _on_disk(function: Callable[..., None]) -> Callable[..., None]:
    """Say of a path that cannot be used that it is the path; a full disk stays one."""

    @functools.wraps(function)
    def verb(*args: Any, **typed: Any) -> None:
        try:
            function(*args, **typed)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise MissingInput(
                f"{error.filename} cannot be used",
                why=f"{error.strerror}",
                cure="name another path",
            ) from None

    return verb


def _signing(function: F) -> F:
    """Give a verb what every signing of an index takes."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        click.option(
            "--book",
            metavar="FILE",
            type=_FILE,
            help="What was signed before, kept out of the served folder: a folder that was put "
            "back to an older state revives nothing. Default: beside the first key, PEM.book.",
        ),
        click.option(
            "--days",
            type=click.IntRange(1, 3650),
            default=90,
            show_default=True,
            help="Days for which devices take the index: a withdrawal can be kept back no longer.",
        ),
        click.option(
            "--trusted",
            "trusted",
            multiple=True,
            metavar="PEM",
            type=_FILE,
            help="Public key of another member who signed before; may be given again.",
        ),
        click.option(
            "--key",
            "keys",
            multiple=True,
            required=True,
            metavar="PEM",
            type=_FILE,
            help="Private key that signs the index; may be given again.",
        ),
    ):
        function = option(function)
    return function


@click.command(epilog=example("edge device --out device.py"))
@click.option("--out", required=True, metavar="FILE", type=_FILE, help="File to write.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@_on_disk
def device(out: Path, as_json: bool) -> None:
    """Write the one file that a device runs: verify, predict, init, pull, rollback, health.

    It needs Python 3.11, numpy, onnxruntime and cryptography, and is the same for every model.
    Nothing checks this file, so bring it to a device by a way that you trust, or tell its SHA-256.
    """
    from ..core.digest import sha256_hex
    from ..core.files import write_atomic
    from ..edge.single_file import device_script

    content = device_script().encode()
    if out.exists() and (not out.is_file() or out.read_bytes() != content):
        raise OutputExists(
            f"{out} exists and is another file", cure="remove it, or name another one"
        )
    write_atomic(out, content)
    digest = sha256_hex(content)
    if as_json:
        click.echo(json.dumps({"out": str(out), "sha256": digest, "bytes": len(content)}))
        return
    click.echo(f"{out}: {len(content):,} bytes, {digest}")
    click.echo(f"Next: python {out} init home --from URL --key PEM")


@click.command(
    epilog=example(
        "edge index public-folder bundle --key lab.pem",
        "edge index public-folder --key lab.pem --days 90",
    )
)
@click.argument("folder", metavar="FOLDER", type=_FILE)
@click.argument("bundle", metavar="[BUNDLE]", type=_FILE, required=False)
@click.option(
    "--threshold",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How many of the keys, trusted ones included, must have signed BUNDLE.",
)
@_signing
@_on_disk
def index(
    *,
    folder: Path,
    bundle: Path | None,
    threshold: int,
    keys: tuple[Path, ...],
    trusted: tuple[Path, ...],
    days: int,
    book: Path | None,
    as_json: bool,
) -> None:
    """Add BUNDLE to the publication in FOLDER and sign its index; without BUNDLE, sign anew.

    Any web server can serve FOLDER as it is. A first bundle makes the publication.
    """
    from ..edge import publication
    from ..edge.publication_book import beside
    from ..edge.publication_index import read_index

    signers, others = _private(keys), _public(trusted)
    kept = book or beside(keys[0])
    if bundle is None:
        found = publication.refresh(folder, signers, trusted=others, valid_days=days, book=kept)
    else:
        publication.add(
            folder,
            bundle,
            signers,
            trusted=others,
            threshold=threshold,
            valid_days=days,
            book=kept,
        )
        found = read_index(folder, [*(key.public_key() for key in signers), *others])
    _tell(folder, found, as_json=as_json)


@click.command(
    epilog=example('edge withdraw public-folder 3 --reason "wrong labels" --key lab.pem')
)
@click.argument("folder", metavar="FOLDER", type=_FILE)
@click.argument("version", metavar="VERSION", type=click.IntRange(1))
@click.option("--reason", required=True, metavar="TEXT", help="Why, in one line; devices show it.")
@_signing
@_on_disk
def withdraw(
    *,
    folder: Path,
    version: int,
    reason: str,
    keys: tuple[Path, ...],
    trusted: tuple[Path, ...],
    days: int,
    book: Path | None,
    as_json: bool,
) -> None:
    """Take VERSION back, for good: devices leave it at their next pull."""
    from ..edge import publication
    from ..edge.publication_book import beside

    found = publication.withdraw(
        folder,
        version,
        reason,
        _private(keys),
        trusted=_public(trusted),
        valid_days=days,
        book=book or beside(keys[0]),
    )
    _tell(folder, found, as_json=as_json)


@click.command(
    epilog=example(
        "edge sign bundle --key member.pem",
        "edge sign public-folder --key member.pem --trusted lab.pub --yes",
    )
)
@click.argument("path", metavar="BUNDLE|FOLDER", type=_FILE)
@click.option("--key", required=True, metavar="PEM", type=_FILE, help="Your private key.")
@click.option(
    "--trusted",
    multiple=True,
    metavar="PEM",
    type=_FILE,
    help="Public key of which one must have signed before; may be given again.",
)
@click.option("--yes", is_flag=True, help="Sign without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object; needs --yes.")
@_on_disk
def sign(path: Path, key: Path, trusted: tuple[Path, ...], yes: bool, as_json: bool) -> None:
    """Add your signature to a bundle, or to the index of a publication, after showing it.

    Devices that trust k of n keys take it once k members have signed. Twice changes nothing.
    """
    from ..core.signing import fingerprint
    from ..edge.countersign import countersign, read_signable

    found, (private,) = read_signable(path), _private((key,))
    own = fingerprint(private.public_key())
    if not as_json:
        _show(found, own)
    ask_to_sign(yes=yes, as_json=as_json)
    changed = countersign(found, private, _public(trusted))
    signers = list(dict.fromkeys([*found.signers, own]))
    if as_json:
        answer = {"path": str(found.path), "changed": changed, "signers": signers}
        click.echo(json.dumps(answer | {"facts": found.facts}, ensure_ascii=False))
    elif changed:
        click.echo(f"Signed: {found.path} holds {len(signers)} signatures now")
    else:
        click.echo("You had signed this already: nothing changed.")


def _show(found: Signable, own: str) -> None:
    from ..server.words import clean

    for name, value in found.facts:
        click.echo(f"{name:<12}{clean(value)}")
    for signer in found.signers:
        click.echo(f"{'signed by':<12}{clean(signer)}")
    click.echo(f"{'you sign as':<12}{own}\n")


def _tell(folder: Path, found: Index, *, as_json: bool) -> None:
    from ..server.words import clean

    if as_json:
        versions = [offer.version for offer in found.offers]
        simulated = [offer.version for offer in found.offers if offer.simulated]
        gone = [each.version for each in found.withdrawn]
        answer = {"folder": str(folder), "name": found.name, "sequence": found.sequence}
        times = {"created": found.created.isoformat(), "expires": found.expires.isoformat()}
        lists = {"versions": versions, "simulated": simulated, "withdrawn": gone}
        program = {"device_digest": found.device_digest}
        click.echo(json.dumps(answer | times | lists | program, ensure_ascii=False))
        return
    offers = [f"{o.version}{' (simulated)' if o.simulated else ''}" for o in found.offers]
    offered = ", ".join(offers) or "none"
    click.echo(clean(f"{folder}: {found.name}, index {found.sequence}, versions {offered}"))
    for each in found.withdrawn:
        click.echo(clean(f"withdrawn: version {each.version}, {each.reason}"))
    click.echo(f"device.py {found.device_digest}: tell it to those who fetch device.py from there")
    click.echo(f"valid until {found.expires:%Y-%m-%d}; `collegium edge index` signs it anew")


def _private(paths: tuple[Path, ...]) -> list[Ed25519PrivateKey]:
    """Read private keys that nobody else can read."""
    from ..core.public_keys import require_private
    from ..core.signing import load_private

    keys = [load_private(path) for path in paths]
    for path in paths:
        require_private(path)
    return keys


def _public(paths: tuple[Path, ...]) -> list[Ed25519PublicKey]:
    from ..core.signing import load_public

    return [load_public(path) for path in paths]

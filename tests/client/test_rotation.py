"""A new signing key: no crash and no unreadable ledger ever loses one, and the way back works."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.client.rotation import complete_rotation, rotate_key
from collegium.client.service import SiteService
from collegium.core.agreement_files import open_agreement, sign_agreement
from collegium.core.enroll import enroll_site
from collegium.core.errors import CollegiumError, OutputExists, Refused
from collegium.core.signing import fingerprint, generate_key, load_private, save_private
from collegium.server.provision import provision

Make = Callable[..., Any]


@pytest.fixture
def town(make_town: Make) -> Any:
    """An approved town with a ledger."""
    made = make_town(folder="t")
    made.approve()
    made.open().ledger.close()
    return made


def keys_in(folder: Path) -> set[str]:
    """The fingerprint of every signing key in a folder, whatever its name."""
    paths = [path for path in folder.iterdir() if path.name.startswith("signing.pem")]
    return {fingerprint(load_private(path).public_key()) for path in paths}


def cut_short(town: Any, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Kill a rotation between the ledger and the files; return both keys."""
    with monkeypatch.context() as patch:
        patch.setattr("collegium.client.rotation._rename", _die)
        site = town.open()
        with pytest.raises(KeyboardInterrupt):
            rotate_key(site.ledger, town.home / "keys")
        site.ledger.close()
    both = keys_in(town.home / "keys")
    assert len(both) == 2
    return both


def _die(*_: object) -> None:
    raise KeyboardInterrupt


LEDGERS: dict[str, Callable[[Path], Any]] = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "noise": lambda path: path.write_bytes(b"\x00\xff" * 4096),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("what", LEDGERS)
def test_without_a_readable_ledger_both_keys_stay(
    town: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The key in force may be the next one: only the ledger knows."""
    both = cut_short(town, monkeypatch)
    keys, ledger = town.home / "keys", town.file.ledger_path
    copy = shutil.copy(ledger, ledger.with_name("copy"))
    LEDGERS[what](ledger)
    names = sorted(keys.iterdir())
    with pytest.raises(CollegiumError):
        complete_rotation(keys, ledger)
    assert keys_in(keys) == both and sorted(keys.iterdir()) == names
    if ledger.is_dir():
        ledger.rmdir()
    shutil.move(copy, ledger)
    assert complete_rotation(keys, ledger)
    assert keys_in(keys) == both and not (keys / "signing.pem.next").exists()


def test_a_next_key_that_the_ledger_never_saw_is_kept_aside(town: Any) -> None:
    keys, seen = town.home / "keys", keys_in(town.home / "keys")
    for number in (1, 2):
        save_private(generate_key(), keys / "signing.pem.next")
        seen = seen | keys_in(keys)
        assert not complete_rotation(keys, town.file.ledger_path)
        assert (keys / f"signing.pem.unused.{number}").is_file() and keys_in(keys) == seen
    save_private(generate_key(), keys / "signing.pem.next")
    seen = seen | keys_in(keys)
    site = town.open()
    new = rotate_key(site.ledger, keys)
    site.ledger.close()
    assert keys_in(keys) == {*seen, new}
    assert (keys / "signing.pem.unused.3").stat().st_mode & 0o077 == 0


def test_rotations_at_once_lose_no_key(town: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC has four threads: the key that the ledger ends with must be signing.pem."""
    service = SiteService(town.file, town.kit())
    site = service._site = town.open()
    keys, made, inside = town.home / "keys", list[str](), threading.Semaphore(1)
    rotate = site.ledger.rotate

    def alone(new: Any) -> None:
        assert inside.acquire(blocking=False), "two rotations at once"
        threading.Event().wait(0.05)
        rotate(new)
        inside.release()

    monkeypatch.setattr(site.ledger, "rotate", alone)
    threads = [threading.Thread(target=lambda: made.append(service.rotate())) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert len(set(made)) == 4
    last = [entry for entry in site.ledger.entries() if entry.kind == "key-rotate"][-1]
    site.ledger.close()
    assert fingerprint(load_private(keys / "signing.pem").public_key()) == last.public_key
    assert set(made) < keys_in(keys) and len(keys_in(keys)) == 5


def test_the_whole_way_from_a_rotation_to_a_new_kit(town: Any) -> None:
    """docs/site.md, section 10: rotate, enrol again, a new roster and kit, approve, train."""
    keys, name = town.home / "keys", town.name
    with pytest.raises(OutputExists):  # the same keys: nothing to send anew
        enroll_site(name, f"{name}-clinic", keys)
    site = town.open()
    new = rotate_key(site.ledger, keys)
    site.ledger.close()
    with pytest.raises(Refused, match="not the key"):
        town.kit()
    enrolled = enroll_site(name, f"{name}-clinic", keys)
    assert enrolled.fingerprint == new
    assert (keys / f"{name}.request.json.old").is_file()
    shutil.copy(enrolled.request, town.folder / "requests")
    out = town.folder / "out"
    provision(town.plan, town.folder / "requests", out, app=b"bundle")
    for member in ("ann", "bo"):
        key = load_private(town.folder / member / "member.pem")
        sign_agreement(open_agreement(out / "agreement"), key)
    provision(town.plan, town.folder / "requests", out, app=b"bundle")
    shutil.rmtree(town.home / "kit")
    shutil.copytree(out / "kits" / name, town.home / "kit")
    assert town.kit().roster.site(name).public_key == new
    with pytest.raises(Refused):
        town.open()  # the old approval is signed by the old key
    town.approve()
    site = town.open()
    assert fingerprint(site.public_key) == new
    assert [entry.kind for entry in site.ledger.entries()] == ["genesis", "key-rotate"]
    site.ledger.close()

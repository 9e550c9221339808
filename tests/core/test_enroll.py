"""Enrolling twice: the same keys are not repeated, other keys get a request of their own."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from collegium.core.enroll import SIGNING_KEY, SUPERNODE_KEY, enroll_member, enroll_site
from collegium.core.errors import InvalidInput, OutputExists
from collegium.core.requests import SiteRequest, read_request
from collegium.core.signing import fingerprint, generate_key, save_private


def test_other_keys_get_a_new_request_and_the_old_one_is_kept(tmp_path: Path) -> None:
    first = enroll_site("north", "North", tmp_path)
    olds = [first.request.read_bytes()]
    for number in ("old", "old.2"):
        (tmp_path / SIGNING_KEY).unlink()
        key = generate_key()
        save_private(key, tmp_path / SIGNING_KEY)
        made = enroll_site("north", "North", tmp_path)
        assert made.fingerprint == fingerprint(key.public_key())
        assert read_request(made.request.read_bytes()).public_key == made.fingerprint
        assert (tmp_path / f"north.request.json.{number}").read_bytes() == olds[-1]
        olds.append(made.request.read_bytes())


def test_a_lost_supernode_key_is_made_anew_and_asked_for(tmp_path: Path) -> None:
    first = enroll_site("north", "North", tmp_path)
    before = read_request(first.request.read_bytes())
    (tmp_path / SUPERNODE_KEY).unlink()
    after = read_request(enroll_site("north", "North", tmp_path).request.read_bytes())
    assert isinstance(before, SiteRequest) and isinstance(after, SiteRequest)
    assert after.public_key == before.public_key
    assert after.supernode_key != before.supernode_key


@pytest.mark.parametrize("enroll", [enroll_site, enroll_member])
def test_the_same_keys_are_not_asked_for_twice(
    tmp_path: Path, enroll: Callable[[str, str, Path], object]
) -> None:
    enroll("north", "North", tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(OutputExists, match="exists already"):
        enroll("north", "North", tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("enroll", "key"), [(enroll_site, SIGNING_KEY), (enroll_member, "member.pem")]
)
def test_a_lost_signing_key_is_never_replaced_in_silence(
    tmp_path: Path, enroll: Callable[[str, str, Path], object], key: str
) -> None:
    """A new one could never open the ledger that the lost one signed."""
    enroll("north", "North", tmp_path)
    (tmp_path / key).unlink()
    with pytest.raises(OutputExists, match="off-line copy"):
        enroll("north", "North", tmp_path)
    assert not (tmp_path / key).exists()


def test_a_damaged_request_is_kept_and_written_anew(tmp_path: Path) -> None:
    enroll_site("north", "North", tmp_path)
    (tmp_path / "north.request.json").write_bytes(b"damaged")
    enroll_site("north", "North", tmp_path)
    assert (tmp_path / "north.request.json.old").read_bytes() == b"damaged"
    read_request((tmp_path / "north.request.json").read_bytes())


def test_no_key_is_made_for_a_name_that_is_none(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    with pytest.raises(InvalidInput):
        enroll_site("../north", "North", folder)
    with pytest.raises(InvalidInput):
        enroll_site("north", "North\u3164", folder)
    assert not folder.exists()
    shutil.rmtree(tmp_path)

"""Every file of a coordinator is checked before anything is started."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from collegium.core.errors import CollegiumError, InvalidInput, MissingInput, Refused
from collegium.server.certificates import ensure_certificates
from collegium.server.coordinator import Home, load_coordinator


@pytest.fixture
def home(make_federation: Any) -> Path:
    return make_federation().home


def test_a_provisioned_folder_is_a_coordinator(home: Path) -> None:
    found = load_coordinator(home)
    assert found.roster.lab
    assert "LAB ROSTER" in found.warnings[0]
    assert found.expires > datetime.now(UTC) + timedelta(days=300)


def test_all_missing_files_are_named_at_once(home: Path) -> None:
    for name in ("agreement/roster.dsse", "coordinator/app.fab", "coordinator/keys/server.key"):
        (home / name).unlink()
    with pytest.raises(MissingInput) as caught:
        load_coordinator(home)
    for name in ("roster.dsse", "app.fab", "server.key"):
        assert name in str(caught.value)
    with pytest.raises(MissingInput):
        load_coordinator(home / "nothing-here")


@pytest.mark.parametrize("name", ["server.key", "coordinator.pem", "superexec.secret"])
@pytest.mark.parametrize("mode", [0o644, 0o640, 0o602])
def test_a_key_that_others_can_read_is_refused(home: Path, name: str, mode: int) -> None:
    (Home(folder=home).keys / name).chmod(mode)
    with pytest.raises(Refused, match=name):
        load_coordinator(home)


@pytest.mark.parametrize("name", ["coordinator/app.fab", "coordinator/certs/ca.crt"])
def test_a_file_that_the_roster_does_not_name_is_refused(home: Path, name: str) -> None:
    path = home / name
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(Refused, match=path.name):
        load_coordinator(home)


def test_another_coordinators_key_is_refused(home: Path, make_federation: Any) -> None:
    other = make_federation()
    shutil.copy(Home(folder=other.home).keys / "coordinator.pem", Home(folder=home).keys)
    with pytest.raises(Refused, match=r"coordinator\.pem"):
        load_coordinator(home)


@pytest.mark.parametrize("name", ["plan.dsse", "roster.dsse", "plan.toml"])
def test_no_flipped_bit_of_the_agreement_passes_unseen(home: Path, name: str) -> None:
    path = home / "agreement" / name
    raw, before = path.read_bytes(), load_coordinator(home)
    for offset in range(0, len(raw), max(1, len(raw) // 60)):
        path.write_bytes(raw[:offset] + bytes([raw[offset] ^ 0x04]) + raw[offset + 1 :])
        try:
            found = load_coordinator(home)
        except CollegiumError as error:
            assert error.exit_code in (65, 66, 77)
        else:  # a bit that means nothing: a comment, another signature's name
            assert found.plan.digest == before.plan.digest
            assert found.roster == before.roster


def test_an_ended_certificate_is_refused_and_a_nearing_end_is_told(home: Path) -> None:
    folder = home / "coordinator"
    certs = Home(folder=home).certs
    for age, ended in ((timedelta(days=380), False), (timedelta(days=398), True)):
        (certs / "server.pem").unlink()
        ca = (certs / "ca.crt").read_bytes()
        when = datetime.now(UTC) - age
        ensure_certificates(folder, consortium="c", host="127.0.0.1", now=when)
        (certs / "ca.crt").write_bytes(ca)
        if ended:
            with pytest.raises(Refused, match="out of its time"):
                load_coordinator(home)
        else:
            assert "ends in 1" in load_coordinator(home).warnings[-1]


def test_broken_certificates_are_named(home: Path) -> None:
    (Home(folder=home).certs / "server.pem").write_text("hello")
    with pytest.raises(InvalidInput, match=r"server\.pem"):
        load_coordinator(home)

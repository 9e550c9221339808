"""The heads of a real run: each signed by its site, and the ones that result.json tells."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.cli.main import run as collegium
from collegium.core.errors import InvalidInput, LedgerTampered, MissingInput, Refused
from collegium.core.messages import Sealed, Update
from collegium.core.signing import load_private
from collegium.server.heads_check import checked_heads, holds_heads
from collegium.simulations.audit import audit_run


@pytest.fixture
def lab(make_federation: Any) -> Any:
    """A run that has ended."""
    made = make_federation()
    made.drive()
    made.finish()
    return made


def change(path: Path, how: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(path.read_bytes())
    how(values)
    path.write_text(json.dumps(values))


def test_every_head_is_its_sites_own(lab: Any) -> None:
    assert holds_heads(lab.run)
    found = checked_heads(lab.run)
    roster = lab.coordinator().roster
    assert {head.site: head.signer for head in found} == {
        site.name: site.public_key for site in roster.sites
    }
    assert {head.round for head in found} == {3}
    assert {head.roster_sha256 for head in found} == {roster.digest}
    for head in found:
        ledger = lab.consortium.ledgers[head.site]
        assert head.ledger_head in {entry.hash for entry in ledger.entries()}
    own = lab.home / "agreement" / "roster.dsse"
    assert checked_heads(lab.run, own) == found


def swap(values: dict[str, Any]) -> None:
    values["ledger_head"] = "sha256:" + "0" * 64


def resign(lab: Any, site: str, by: str, **fields: Any) -> None:
    """Sign a site's last header with changed fields, by the key of ``by``."""
    key = load_private(lab.home / "lab" / "sites" / by / "signing.pem")

    def how(values: dict[str, Any]) -> None:
        header = json.loads(base64.b64decode(values["signed"]["header"])) | fields
        raw = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        signed = Update.signed_bytes(Sealed(header=raw, signature=b"", payload=b""))
        values["signed"]["header"] = base64.b64encode(raw).decode()
        values["signed"]["signature"] = key.sign(signed).hex()
        values["ledger_head"], values["round"] = header["ledger_head"], header["round"]
        values["site"] = header["site"]

    change(lab.run / "ledgers" / f"{site}.json", how)


def test_what_the_site_did_not_sign_is_found(lab: Any) -> None:
    path = lab.run / "ledgers" / "s1.json"
    kept = path.read_bytes()
    change(path, swap)
    with pytest.raises(LedgerTampered, match="something else"):
        checked_heads(lab.run)
    resign(lab, "s1", "s0")
    with pytest.raises(LedgerTampered, match="roster's key"):
        checked_heads(lab.run)
    path.write_bytes((lab.run / "ledgers" / "s0.json").read_bytes())
    with pytest.raises(LedgerTampered, match="roster's key"):
        checked_heads(lab.run)
    for raw in (b"", b"[]", b"{}", b"\xff", b'{"signed": {"header": 1}}'):
        path.write_bytes(raw)
        with pytest.raises(LedgerTampered, match="not a signed head"):
            checked_heads(lab.run)
    path.unlink()
    with pytest.raises(LedgerTampered, match="missing"):
        checked_heads(lab.run)
    path.write_bytes(kept)
    assert len(checked_heads(lab.run)) == 3


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"job": "f" * 32}, "another run"),
        ({"round": 2}, "of round 2"),
        ({"ledger_head": "sha256:" + "1" * 64}, "tells another"),
    ],
)
def test_a_head_that_the_site_signed_for_something_else(
    lab: Any, fields: dict[str, Any], why: str
) -> None:
    resign(lab, "s1", "s1", **fields)
    with pytest.raises(LedgerTampered, match=why):
        checked_heads(lab.run)


def test_a_roster_must_be_there_signed_and_of_this_plan(lab: Any, make_federation: Any) -> None:
    other = make_federation()
    with pytest.raises(LedgerTampered, match="roster's key"):
        checked_heads(lab.run, other.home / "agreement" / "roster.dsse")
    for path in (lab.run / "rosters").iterdir():
        change(path, lambda values: values.update(signatures=[]))
        with pytest.raises(Refused, match="no member"):
            checked_heads(lab.run)
        path.unlink()
    with pytest.raises(MissingInput, match="no roster"):
        checked_heads(lab.run)
    with pytest.raises(MissingInput, match="no roster at"):
        checked_heads(lab.run, lab.run / "nowhere.dsse")
    change(lab.run / "result.json", lambda values: values.update(plan_sha256="sha256:0"))
    with pytest.raises(InvalidInput, match="another plan"):
        checked_heads(lab.run, lab.home / "agreement" / "roster.dsse")


def test_a_run_keeps_every_roster_that_it_was_run_under(lab: Any) -> None:
    from collegium.server.federation_heads import keep_roster

    raw = (lab.home / "agreement" / "roster.dsse").read_bytes()
    keep_roster(lab.run, raw)
    assert [path.read_bytes() for path in (lab.run / "rosters").iterdir()] == [raw]


def test_what_an_auditor_types(lab: Any, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(lab.run)
    for verb in ("verify", "show"):
        assert collegium(["ledger", verb, run]) == 0
        told = capsys.readouterr().out
        assert told.count(": ok, signed in round 3") == 3
        assert "--heads" in told and lab.coordinator().roster.digest in told
    assert collegium(["ledger", "verify", run, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["heads"]) == 3
    assert collegium(["ledger", "verify", run, "--key", "x"]) == 64
    own = lab.folder / "sites" / "ledgers"
    ledger = next(own.glob("s1.sqlite"))
    key = str(lab.home / "lab" / "sites" / "s1" / "signing.pem")
    heads = str(lab.run / "result.json")
    assert collegium(["ledger", "verify", str(ledger), "--key", key, "--heads", heads]) == 0
    assert collegium(["ledger", "verify", str(ledger), "--roster", key]) == 64
    capsys.readouterr()
    assert collegium(["ledger", "export", run, "--out", str(lab.folder / "x")]) == 66
    assert "stay at its sites" in capsys.readouterr().err
    change(lab.run / "ledgers" / "s1.json", swap)
    assert collegium(["ledger", "verify", run]) == 2
    assert collegium(["ledger", "show", run]) == 2


def test_the_audit_sends_to_the_sites(lab: Any) -> None:
    with pytest.raises(MissingInput, match="stay at the sites") as found:
        audit_run(lab.run)
    assert "audit --site SITE.toml" in str(found.value)
    assert "again" not in str(found.value)

"""Provisioning: everything that is missing at once, keys made once, kits without any secret."""

import errno
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from collegium.core.agreement import Roster, read_envelope, verify_agreement
from collegium.core.agreement_files import open_agreement, sign_agreement
from collegium.core.digest import sha256_hex
from collegium.core.enroll import Enrolled, enroll_member, enroll_site
from collegium.core.errors import InvalidInput, InvalidPlan, MissingInput, OutputExists, Refused
from collegium.core.plan import ModelRef, Plan, Privacy, Rounds, Simulation, SiteRef
from collegium.core.plan_federation import Federation
from collegium.core.signing import load_private
from collegium.core.site_file import DataSection, SiteFile, SiteLink
from collegium.server.provision import Provisioned, SiteWords, provision, provision_lab

PLAN = Plan(
    consortium="tests",
    sites=(SiteRef(name="north", public_records=300), SiteRef(name="south", public_records=300)),
    model=ModelRef(name="collegium:glyph-cnn", task="classification", classes=("0", "1")),
    rounds=Rounds(count=3, local_steps=2),
    privacy=Privacy(epsilon=2.0, delta=1e-4, sampling_rate=0.25),
    federation=Federation(address="fl.example.org:8000", coordinator="University X", signatures=2),
    simulation=Simulation(dataset="sklearn:digits", seed=7),
)
APP = b"an app bundle"
DATA = DataSection(asset="a1", reader="npz", path="r.npz", label="y", test_share=0.1)


@dataclass
class Office:
    """The coordinator's desk: requests that came in, and where the federation goes."""

    folder: Path

    @property
    def requests(self) -> Path:
        return self.folder / "requests"

    @property
    def out(self) -> Path:
        return self.folder / "federation"

    def member(self, name: str, institution: str = "") -> Enrolled:
        made = enroll_member(name, institution or f"{name} clinic", self.folder / name)
        return self._received(made)

    def site(self, name: str) -> Enrolled:
        return self._received(enroll_site(name, f"{name} hospital", self.folder / f"at-{name}"))

    def _received(self, made: Enrolled) -> Enrolled:
        self.requests.mkdir(exist_ok=True)
        shutil.copy(made.request, self.requests)
        return made

    def all(self) -> "Office":
        for name in ("north", "south"):
            self.site(name)
        for name in ("alice", "bob"):
            self.member(name)
        return self

    def provision(self, plan: Plan = PLAN, **options: object) -> Provisioned:
        return provision(plan, self.requests, self.out, **{"app": APP, **options})  # type: ignore

    def sign(self, *names: str, folder: Path | None = None) -> None:
        for name in names:
            key = load_private(self.folder / name / "member.pem")
            sign_agreement(open_agreement(folder or self.out / "agreement"), key)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def verified(found: Provisioned, kit: str = "north") -> Roster:
    folder = found.folders.kit(kit)
    return verify_agreement(
        Plan.load(folder / "plan.toml"),
        (folder / "plan.dsse").read_bytes(),
        (folder / "roster.dsse").read_bytes(),
        pins=[member.public_key for member in found.roster.members],
        needed=2,
        allow_lab=found.roster.lab,
    ).roster


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_all_that_is_missing_is_named_at_once(office: Office) -> None:
    office.member("xavier", "university  x")  # the coordinator's own: does not count
    with pytest.raises(MissingInput) as caught:
        office.provision()
    message = caught.value.message()
    assert "site north" in message and "site south" in message
    assert "members of 2 more institutions" in message
    assert not office.out.exists(), "nothing is made before everything is there"


def test_two_members_of_one_institution_are_one(office: Office) -> None:
    office.all()
    (office.requests / "bob.request.json").unlink()
    office.member("carol", "ALICE clinic")
    with pytest.raises(MissingInput, match="a member of 1 more institution"):
        office.provision()


def test_wrong_requests_are_named_with_what_is_missing(office: Office) -> None:
    office.site("north")
    (office.requests / "south.request.json").write_bytes(b"{}")
    (office.requests / "stray.dsse").write_bytes(b"nothing")
    with pytest.raises(InvalidInput) as caught:
        office.provision()
    message = caught.value.message()
    for word in ("south.request.json", "stray.dsse", "site south", "2 more institutions"):
        assert word in message


def test_two_requests_of_one_name_or_key(office: Office) -> None:
    office.all()
    twin = enroll_site("north", "evil", office.folder / "evil")
    shutil.copy(twin.request, office.requests / "z.request.json")
    again = enroll_member("robert", "another clinic", office.folder / "bob")  # bob's key
    shutil.copy(again.request, office.requests)
    with pytest.raises(InvalidInput) as caught:
        office.provision()
    assert "same site name" in caught.value.message() and "same key" in caught.value.message()


def test_the_plan_may_name_a_sites_key(office: Office) -> None:
    office.all()
    north, south = PLAN.sites
    other = enroll_member("other", "other", office.folder / "other").fingerprint
    with pytest.raises(InvalidInput, match="another key in its request"):
        office.provision(replace(PLAN, sites=(replace(north, public_key=other), south)))


def test_a_plan_without_a_federation_is_refused(office: Office) -> None:
    office.all()
    with pytest.raises(InvalidPlan, match="--lab"):
        office.provision(replace(PLAN, federation=None))


def test_requests_that_are_not_there(office: Office) -> None:
    with pytest.raises(MissingInput, match="no folder"):
        office.provision()


def test_from_requests_to_complete_kits(office: Office) -> None:
    first = office.all().provision()
    assert first.missing == {"plan": 2, "roster": 2} and not first.complete
    with pytest.raises(Refused, match="0 of 2"):
        verified(first)
    office.sign("alice")
    assert office.provision().missing == {"plan": 1, "roster": 1}
    # bob signs a copy that he was sent, and sends it back
    copy = office.requests / "from-bob"
    shutil.copytree(office.out / "agreement", copy)
    office.sign("bob", folder=copy)
    done = office.provision()
    assert done.complete and done.roster == first.roster
    for site in ("north", "south"):
        assert verified(done, site) == first.roster
        assert "NOT COMPLETE" not in (done.folders.kit(site) / "README.txt").read_text()
    shutil.rmtree(copy)
    assert office.provision().complete, "a signature once taken in is kept"


def test_the_roster_says_what_was_enrolled(office: Office) -> None:
    found = office.all().provision()
    roster, own = found.roster, found.folders.coordinator
    assert [site.name for site in roster.sites] == ["north", "south"]
    assert [member.name for member in roster.members] == ["alice", "bob"]
    assert not roster.lab and roster.address == "fl.example.org:8000"
    assert roster.apps == (sha256_hex(APP),) and (own / "app.fab").read_bytes() == APP
    assert roster.ca_sha256 == sha256_hex((own / "certs" / "ca.crt").read_bytes())
    assert roster.plan_sha256 == PLAN.digest
    assert Plan.load(found.folders.agreement / "plan.toml").simulation is None


def test_a_second_time_keeps_every_key_and_says_so(office: Office) -> None:
    office.all().provision()
    before = files(office.out)
    again = office.provision()
    assert files(office.out) == before
    assert all("kept" in line for line in again.done)


def test_no_kit_holds_a_secret(office: Office) -> None:
    found = office.all().provision()
    private = [
        line
        for path in [
            *found.folders.coordinator.glob("keys/*"),
            *office.folder.glob("*/signing.pem"),
            *office.folder.glob("*/supernode.key"),
        ]
        for line in path.read_bytes().splitlines()
        if not line.startswith(b"-----") and len(line) > 8
    ]
    assert len(private) > 10
    for name, content in (files(office.out / "kits") | files(office.out / "agreement")).items():
        assert b"PRIVATE" not in content, name
        assert not any(line in content for line in private), name
    assert found.folders.coordinator.stat().st_mode & 0o777 == 0o700
    modes = {path.stat().st_mode & 0o777 for path in found.folders.coordinator.glob("keys/*")}
    assert modes == {0o600}
    assert len((found.folders.coordinator / "keys" / "superexec.secret").read_bytes()) == 32


def test_a_changed_plan_drops_the_old_signatures_and_says_so(office: Office) -> None:
    office.all().provision()
    office.sign("alice", "bob")
    raised = replace(PLAN, privacy=replace(PLAN.privacy, epsilon=9.0))
    found = office.provision(raised)
    assert found.missing == {"plan": 2, "roster": 2}
    assert any("plan.dsse: changed since 2" in line for line in found.done)
    assert read_envelope((found.folders.agreement / "plan.dsse").read_bytes()).signers == ()
    assert not office.provision(PLAN).complete, "the old signatures are not kept for later"


def test_a_renewed_ca_needs_a_new_roster(office: Office) -> None:
    office.all().provision()
    office.sign("alice", "bob")
    later = datetime.now(UTC) + timedelta(days=380)
    found = office.provision(now=later)
    assert found.complete, "a new server certificate needs no signature"
    assert any("renewed" in line for line in found.done)
    found = office.provision(now=datetime.now(UTC) + timedelta(days=810))
    assert found.missing == {"plan": 0, "roster": 2}


def test_a_foreign_folder_is_left_alone(office: Office) -> None:
    office.all()
    office.out.mkdir()
    (office.out / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputExists):
        office.provision()
    assert list(files(office.out)) == ["thesis.tex"]


def test_lab_and_real_never_mix(office: Office) -> None:
    office.all().provision()
    with pytest.raises(OutputExists, match="Lab keys"):
        provision_lab(PLAN, office.out, app=APP)
    provision_lab(PLAN, office.folder / "lab", app=APP)
    with pytest.raises(OutputExists, match="Lab keys"):
        provision(PLAN, office.requests, office.folder / "lab", app=APP)


def test_notes_on_requests_that_change_nothing(office: Office) -> None:
    office.all()
    office.site("west")
    office.member("xavier", "University X")
    found = office.provision()
    assert any("site west is left out" in line for line in found.done)
    assert any("xavier's signature will not count" in line for line in found.done)
    office.sign("xavier", "alice")
    assert office.provision().missing == {"plan": 1, "roster": 1}


@pytest.mark.slow
def test_a_disk_that_fills_up_anywhere_costs_nothing(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever write fails, the next run goes on with the keys that are there."""
    office.all()
    real, left = os.fsync, [0]

    def fsync(descriptor: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise OSError(errno.ENOSPC, "no room")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for number in range(1, 200, 2):
        left[0] = number
        try:
            office.provision()
        except OSError:
            keys = files(office.out / "coordinator" / "keys")
        else:
            break
        left[0] = 0
        found = office.provision()
        after = files(found.folders.coordinator / "keys")
        assert all(
            after[name] == content for name, content in keys.items() if ".partial" not in name
        )
        office.sign("alice", "bob")
        assert verified(office.provision()) == found.roster
        assert not [name for name in files(office.out) if ".partial" in name]
        shutil.rmtree(office.out)
    assert number > 30


# -- site.toml and the lab


def filled(text: str, pins: Sequence[str]) -> str:
    """Do what the administrator of a site does with the template."""
    words = {"asset": "cardiology", "path": "r.csv", "label": "y", "anchor": "/mnt/other/a"}
    lines: list[str] = []
    for line in text.splitlines():
        key = line.partition(" ")[0]
        if key in words and "FILL IN" in line:
            lines.append(f'{key} = "{words[key]}"')
        elif any(pin in line for pin in pins):
            lines.append(line.replace("# ", "", 1))
        else:
            lines.append(line)
    return "\n".join(lines)


def test_a_kits_site_file_loads_once_it_is_filled_in(office: Office) -> None:
    found = office.all().provision()
    path = found.folders.kit("north") / "site.toml"
    with pytest.raises(InvalidInput) as caught:
        SiteFile.load(path)
    wrong = [problem.where for problem in caught.value.problems]
    assert {"[data] asset", "[data] path", "[data] label", "[policy] signatures"} <= set(wrong)
    pins = [member.public_key for member in found.roster.members]
    path.write_text(filled(path.read_text(encoding="utf-8"), pins), encoding="utf-8")
    site = SiteFile.load(path)
    policy = site.policy
    assert site.site.name == "north" and site.site.mode == "real"
    assert (policy.max_epsilon, policy.delta, policy.unit) == (2.0, 1e-4, "record")
    assert (policy.max_steps, policy.max_sampling_rate, policy.max_clip_norm) == (6, 0.25, 1.0)
    assert policy.relation == "add-or-remove-one" and policy.models == (PLAN.model.name,)
    assert policy.signers == tuple(pins) and policy.signatures == 2 and policy.min_sites == 2
    assert policy.metrics == () and not policy.public_test
    assert site.kit_path == path.parent and site.federation == SiteLink()


def test_a_plan_for_patients_asks_for_their_column(office: Office) -> None:
    plan = replace(PLAN, privacy=replace(PLAN.privacy, unit="patient"))
    found = office.all().provision(plan)
    text = (found.folders.kit("north") / "site.toml").read_text(encoding="utf-8")
    assert 'unit = ""  # FILL IN' in text and 'unit = "patient"' in text


@pytest.mark.parametrize("federation", [None, PLAN.federation])
def test_a_lab_is_complete_at_once(tmp_path: Path, federation: Federation | None) -> None:
    plan = replace(PLAN, federation=federation)
    words = {
        site.name: SiteWords(data=DATA, device="cpu", link=SiteLink(runtime_port=9200 + number))
        for number, site in enumerate(plan.sites)
    }
    found = provision_lab(plan, tmp_path / "lab", address="127.0.0.1:9000", app=APP, words=words)
    assert found.complete and found.roster.lab and found.roster.address == "127.0.0.1:9000"
    assert len(found.roster.members) == (1 if federation is None else 2)
    for number, name in enumerate(("north", "south")):
        site = SiteFile.load(found.folders.kit(name) / "site.toml")
        assert site.site.mode == "simulation" and site.data == DATA
        assert site.hardware.device == "cpu" and site.federation.runtime_port == 9200 + number
        assert site.keys_path.resolve() == found.folders.lab_site(name).resolve()
        assert site.policy.signers == tuple(m.public_key for m in found.roster.members)
    assert Plan.load(found.folders.agreement / "plan.toml") == plan, "with [simulation]"
    assert found.folders.lab.stat().st_mode & 0o777 == 0o700
    before = files(tmp_path / "lab")
    provision_lab(plan, tmp_path / "lab", address="127.0.0.1:9000", app=APP, words=words)
    assert files(tmp_path / "lab") == before


def test_lab_sites_share_no_port(tmp_path: Path) -> None:
    provision_lab(PLAN, tmp_path, app=APP)
    texts = [(tmp_path / "kits" / name / "site.toml").read_text() for name in ("north", "south")]
    assert "runtime_port = 9094" in texts[0] and "runtime_port = 9095" in texts[1]


def test_a_labs_address_is_checked(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="address"):
        provision_lab(PLAN, tmp_path, address="here", app=APP)


def test_the_apps_own_bundle_is_the_default(tmp_path: Path) -> None:
    found = provision_lab(PLAN, tmp_path)
    bundle = found.folders.coordinator / "app.fab"
    assert bundle.read_bytes()[:2] == b"PK" and found.roster.apps == (
        sha256_hex(bundle.read_bytes()),
    )
    assert provision_lab(PLAN, tmp_path).roster == found.roster

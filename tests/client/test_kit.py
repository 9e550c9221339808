"""A site believes nothing in its kit but what its own pinned members signed for its own keys."""

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collegium.client.kit import Kit, load_kit
from collegium.core.agreement import ROSTER_TYPE, Roster, SiteEntry, add_signature, read_envelope
from collegium.core.agreement_files import KIT_FILES, open_agreement, sign_agreement
from collegium.core.enroll import SIGNING_KEY, SUPERNODE_KEY, enroll_member, enroll_site
from collegium.core.errors import CollegiumError, InvalidPlan, MissingInput, Refused
from collegium.core.plan import ModelRef, Plan, Privacy, Rounds, Simulation, SiteRef
from collegium.core.plan_federation import Federation
from collegium.core.plan_file import write_plan
from collegium.core.signing import load_private
from collegium.core.site_file import (
    DataSection,
    LedgerSection,
    PolicySection,
    SiteFile,
    SiteLink,
    SiteSection,
)
from collegium.server.provision import Provisioned, SiteWords, provision, provision_lab

PLAN = Plan(
    consortium="tests",
    sites=(SiteRef(name="north", public_records=300), SiteRef(name="south", public_records=300)),
    model=ModelRef(name="collegium:glyph-cnn", task="classification", classes=("0", "1")),
    rounds=Rounds(count=3),
    privacy=Privacy(epsilon=2.0, delta=1e-4),
    federation=Federation(address="fl.example.org:8000", coordinator="University X", signatures=2),
    simulation=Simulation(dataset="sklearn:digits", seed=7),
)
DATA = DataSection(asset="a1", reader="npz", path="r.npz", label="y")
APP = b"an app bundle"


@dataclass(frozen=True)
class World:
    """A signed federation in a folder: members at NAME/, sites at at-NAME/."""

    folder: Path
    found: Provisioned

    def key(self, member: str):
        return load_private(self.folder / member / "member.pem")

    @property
    def pins(self) -> tuple[str, ...]:
        """What the site's administrator was told by telephone: alice, bob."""
        return tuple(m.public_key for m in self.found.roster.members if m.name in ("alice", "bob"))


def federation(folder: Path, plan: Plan = PLAN, *, signers: tuple[str, ...]) -> World:
    requests = folder / "requests"
    requests.mkdir(parents=True)
    for name in ("north", "south"):
        made = enroll_site(name, f"{name} hospital", folder / f"at-{name}")
        shutil.copy(made.request, requests)
    for name, home in (("alice", "A"), ("bob", "B"), ("carol", "B"), ("xavier", "University X")):
        shutil.copy(enroll_member(name, home, folder / name).request, requests)
    provision(plan, requests, folder / "out", app=APP)
    for name in signers:
        agreement = open_agreement(folder / "out" / "agreement")
        sign_agreement(agreement, load_private(folder / name / "member.pem"))
    return World(folder, provision(plan, requests, folder / "out", app=APP))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return federation(tmp_path_factory.mktemp("world"), signers=("alice", "bob"))


@pytest.fixture
def site(world: World, tmp_path: Path) -> SiteFile:
    return at_site(world, tmp_path)


def at_site(world: World, folder: Path, *, pins: tuple[str, ...] | None = None) -> SiteFile:
    """Return the site file of north, which got its kit and keeps its keys in keys/."""
    shutil.copytree(world.found.folders.kit("north"), folder / "kit")
    shutil.copytree(world.folder / "at-north", folder / "keys")
    return SiteFile(
        site=SiteSection(name="north"),
        data=DATA,
        policy=PolicySection(
            max_epsilon=8.0, delta=1e-4, signers=world.pins if pins is None else pins, signatures=2
        ),
        ledger=LedgerSection(path="ledger.sqlite"),
        federation=SiteLink(kit="kit"),
        folder=folder,
    )


def policy(site: SiteFile, **changes: object) -> SiteFile:
    return replace(site, policy=replace(site.policy, **changes))  # type: ignore[arg-type]


def resign(world: World, site: SiteFile, change: Callable[[Roster], Roster], *by: str) -> None:
    """Put another roster into the kit, signed by ``by``: what a hostile coordinator can do."""
    roster = change(world.found.roster)
    envelope = None
    for name in by:
        envelope = add_signature(envelope, roster.to_bytes(), world.key(name), ROSTER_TYPE)
    assert envelope is not None
    (site.kit_path / "roster.dsse").write_bytes(envelope)


def test_a_whole_kit_is_taken(world: World, site: SiteFile) -> None:
    kit = load_kit(site)
    assert kit.plan == replace(PLAN, simulation=None) and kit.folder == site.kit_path
    assert kit.roster == world.found.roster and set(kit.agreement.signers) == set(world.pins)
    assert kit.ca_certificate == (site.kit_path / "ca.crt").read_bytes()


# -- files that are not there, or not whole


def test_every_missing_file_is_named_at_once(site: SiteFile) -> None:
    shutil.rmtree(site.keys_path)
    for name in KIT_FILES:
        (site.kit_path / name).unlink()
    with pytest.raises(MissingInput) as caught:
        load_kit(site)
    message = caught.value.message()
    assert all(name in message for name in (*KIT_FILES, SIGNING_KEY, SUPERNODE_KEY))


@pytest.mark.parametrize("name", KIT_FILES)
def test_one_missing_file_is_named(site: SiteFile, name: str) -> None:
    (site.kit_path / name).unlink()
    with pytest.raises(MissingInput, match=name):
        load_kit(site)


def test_no_kit_at_all(site: SiteFile) -> None:
    shutil.rmtree(site.kit_path)
    with pytest.raises(MissingInput):
        load_kit(site)


@pytest.mark.parametrize("name", KIT_FILES)
@pytest.mark.parametrize("share", [0.0, 0.5, 0.97])
def test_a_truncated_file_is_refused(site: SiteFile, name: str, share: float) -> None:
    whole = (site.kit_path / name).read_bytes()
    (site.kit_path / name).write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises((Refused, InvalidPlan)):
        load_kit(site)


@pytest.mark.parametrize("name", KIT_FILES)
def test_a_file_of_another_site_or_noise_is_refused(site: SiteFile, name: str) -> None:
    (site.kit_path / name).write_bytes(b"\x00\xff" * 500)
    with pytest.raises((Refused, InvalidPlan)):
        load_kit(site)


@pytest.mark.parametrize("name", KIT_FILES)
def test_a_huge_file_is_not_read(site: SiteFile, name: str) -> None:
    with (site.kit_path / name).open("r+b") as stream:
        stream.truncate(1 << 40)  # sparse: a terabyte that takes no room
    with pytest.raises(Refused, match="MiB"):
        load_kit(site)


@pytest.fixture(scope="module")
def flipping(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[SiteFile, Kit]:
    site = at_site(world, tmp_path_factory.mktemp("flipping"))
    return site, load_kit(site)


@given(name=st.sampled_from(KIT_FILES), place=st.integers(0, 10**9), bit=st.integers(0, 7))
@settings(max_examples=400, deadline=None)
def test_a_flipped_bit_is_refused_or_changes_nothing(
    flipping: tuple[SiteFile, Kit], name: str, place: int, bit: int
) -> None:
    site, kit = flipping
    path = site.kit_path / name
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[place % len(whole)] ^= 1 << bit
    path.write_bytes(flipped)
    try:
        with suppress(CollegiumError):
            found = load_kit(site)
            assert (found.plan, found.roster) == (kit.plan, kit.roster)
            assert found.ca_certificate == kit.ca_certificate
    finally:
        path.write_bytes(whole)


# -- a hostile coordinator: it holds its own keys, and writes every file of the kit


def test_an_unsigned_or_half_signed_kit(world: World, site: SiteFile) -> None:
    for name in ("plan.dsse", "roster.dsse"):
        path = site.kit_path / name
        whole = path.read_bytes()
        outer = json.loads(whole)
        for kept in (0, 1):
            path.write_text(json.dumps(outer | {"signatures": outer["signatures"][:kept]}))
            with pytest.raises(Refused, match=f"{kept} of 2"):
                load_kit(site)
        path.write_bytes(whole)


def test_two_members_of_one_institution(tmp_path: Path) -> None:
    world = federation(tmp_path / "world", signers=("bob", "carol"))
    pins = tuple(member.public_key for member in world.found.roster.members)
    with pytest.raises(Refused, match="1 of 2"):
        load_kit(at_site(world, tmp_path / "site", pins=pins))


def test_the_coordinators_own_member_does_not_count(tmp_path: Path) -> None:
    world = federation(tmp_path / "world", signers=("alice", "xavier"))
    pins = tuple(member.public_key for member in world.found.roster.members)
    with pytest.raises(Refused, match="1 of 2"):
        load_kit(at_site(world, tmp_path / "site", pins=pins))


def test_invented_members_are_not_pinned(tmp_path: Path, world: World) -> None:
    """The coordinator enrolls alice and bob itself, with keys of its own making."""
    fake = federation(tmp_path / "fake", signers=("alice", "bob"))
    site = at_site(fake, tmp_path / "site", pins=world.pins)
    with pytest.raises(Refused, match="2 of the 2 pinned keys are no members"):
        load_kit(site)


def test_a_raised_epsilon_under_old_signatures(site: SiteFile) -> None:
    raised = replace(PLAN, privacy=replace(PLAN.privacy, epsilon=9.0))
    (site.kit_path / "plan.toml").write_text(write_plan(raised), encoding="utf-8")
    with pytest.raises(Refused, match="digest"):
        load_kit(site)


def test_a_raised_epsilon_that_the_coordinator_signed(world: World, site: SiteFile) -> None:
    raised = replace(PLAN, privacy=replace(PLAN.privacy, epsilon=9.0))
    (site.kit_path / "plan.toml").write_text(write_plan(raised), encoding="utf-8")
    resign(world, site, lambda r: replace(r, plan_sha256=raised.digest), "xavier")
    with pytest.raises(Refused, match="not the plan that was signed"):
        load_kit(site)


def test_the_roster_of_another_plan(tmp_path: Path, site: SiteFile) -> None:
    other = replace(PLAN, rounds=Rounds(count=4))
    world = federation(tmp_path / "other", other, signers=("alice", "bob"))
    shutil.copy(world.found.folders.kit("north") / "roster.dsse", site.kit_path)
    with pytest.raises(Refused, match="not of this plan"):
        load_kit(site)


def test_a_swapped_ca(tmp_path: Path, site: SiteFile) -> None:
    world = federation(tmp_path / "other", signers=("alice", "bob"))
    shutil.copy(world.found.folders.kit("north") / "ca.crt", site.kit_path)
    with pytest.raises(Refused, match=r"ca\.crt is not the one"):
        load_kit(site)


def _with_key(roster: Roster, key: str, *, supernode: bool) -> Roster:
    def changed(entry: SiteEntry) -> SiteEntry:
        if entry.name != "north":
            return entry
        return replace(entry, **({"supernode_key": key} if supernode else {"public_key": key}))

    return replace(roster, sites=tuple(changed(entry) for entry in roster.sites))


@pytest.mark.parametrize("supernode", [False, True])
def test_a_replaced_key_of_this_site(
    world: World, site: SiteFile, tmp_path: Path, supernode: bool
) -> None:
    """Even if members sign it: the site knows its own keys."""
    other = enroll_site("other", "other", tmp_path / "other")
    key = (
        (tmp_path / "other" / "supernode.pub").read_text().strip()
        if supernode
        else other.fingerprint
    )
    resign(world, site, lambda r: _with_key(r, key, supernode=supernode), "xavier")
    with pytest.raises(Refused, match="0 of 2"):
        load_kit(site)
    resign(world, site, lambda r: _with_key(r, key, supernode=supernode), "alice", "bob")
    with pytest.raises(Refused, match="is not the key of north"):
        load_kit(site)


def test_another_supernode_pub_in_the_kit(world: World, site: SiteFile) -> None:
    shutil.copy(world.found.folders.kit("south") / "supernode.pub", site.kit_path)
    with pytest.raises(Refused, match=r"supernode\.pub"):
        load_kit(site)


def test_the_kit_of_another_site(world: World, site: SiteFile) -> None:
    shutil.rmtree(site.kit_path)
    shutil.copytree(world.found.folders.kit("south"), site.kit_path)
    with pytest.raises(Refused, match=r"supernode\.pub"):
        load_kit(site)
    named = replace(site, site=SiteSection(name="south"))
    with pytest.raises(Refused, match="is not the key of south"):
        load_kit(named)
    with pytest.raises(Refused, match="no site east"):
        load_kit(replace(site, site=SiteSection(name="east")))


@pytest.mark.parametrize("name", [SIGNING_KEY, SUPERNODE_KEY, "gift.txt"])
def test_a_private_key_in_the_kit(world: World, site: SiteFile, name: str) -> None:
    stray = world.folder / "at-south" / (name if name != "gift.txt" else SUPERNODE_KEY)
    shutil.copy(stray, site.kit_path / name)
    with pytest.raises(Refused, match="holds a private key"):
        load_kit(site)


def test_own_keys_may_lie_in_the_kits_folder(site: SiteFile) -> None:
    for name in (SIGNING_KEY, SUPERNODE_KEY):
        shutil.copy(site.keys_path / name, site.kit_path / name)
    link = replace(site.federation, keys="kit")
    assert load_kit(replace(site, federation=link)).folder == site.kit_path


@pytest.mark.parametrize("name", [SIGNING_KEY, SUPERNODE_KEY])
def test_own_keys_of_another_site_open_or_broken(world: World, site: SiteFile, name: str) -> None:
    path = site.keys_path / name
    path.chmod(0o640)
    with pytest.raises(Refused, match="0640"):
        load_kit(site)
    shutil.copy(world.folder / "at-south" / name, path)
    path.chmod(0o600)
    with pytest.raises(Refused, match="is not the key of north"):
        load_kit(site)
    path.write_bytes(b"nothing")
    with pytest.raises(CollegiumError) as caught:
        load_kit(site)
    assert caught.value.exit_code == 65


# -- the site's own words


def test_a_real_site_refuses_a_lab_roster_and_the_reverse(
    world: World, site: SiteFile, tmp_path: Path
) -> None:
    words = {name: SiteWords(data=DATA) for name in ("north", "south")}
    found = provision_lab(PLAN, tmp_path / "lab", app=APP, words=words)
    lab = SiteFile.load(found.folders.kit("north") / "site.toml")
    assert load_kit(lab).plan == PLAN, "a lab honours [simulation]"
    with pytest.raises(Refused, match="lab roster"):
        load_kit(replace(lab, site=SiteSection(name="north", mode="real")))
    with pytest.raises(Refused, match="a real roster"):
        load_kit(replace(site, site=SiteSection(name="north", mode="simulation")))


def test_only_plans_that_the_site_names(site: SiteFile) -> None:
    digest = PLAN.digest
    assert load_kit(policy(site, plans=("sha256:" + "0" * 64, digest))).plan.digest == digest
    with pytest.raises(Refused, match="does not name"):
        load_kit(policy(site, plans=("sha256:" + "0" * 64,)))


def test_a_digest_alone_is_no_consent_to_a_roster(site: SiteFile) -> None:
    with pytest.raises(Refused, match="no signature is asked for"):
        load_kit(policy(site, plans=(PLAN.digest,), signers=(), signatures=0))


def test_more_signatures_than_there_are(site: SiteFile) -> None:
    with pytest.raises(Refused, match="2 of 3"):
        load_kit(policy(site, signatures=3))


def test_no_record_is_read(site: SiteFile) -> None:
    """The data path names nothing: the kit is checked all the same."""
    assert not site.data_path.exists()
    load_kit(site)


def test_an_unsigned_simulation_table_means_nothing_to_a_real_site(site: SiteFile) -> None:
    path = site.kit_path / "plan.toml"
    path.write_text(path.read_text() + '\n[simulation]\ndataset = "sklearn:digits"\n')
    assert load_kit(site).plan.simulation is None


def test_the_payload_of_the_kit_is_what_was_signed(world: World, site: SiteFile) -> None:
    envelope = read_envelope((site.kit_path / "roster.dsse").read_bytes())
    assert Roster.from_bytes(envelope.payload) == world.found.roster

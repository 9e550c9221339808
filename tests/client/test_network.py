"""The part with the network: its own copy of one key, a shared secret, and the kit all the same."""

import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.client import network
from collegium.core.enroll import enroll_site
from collegium.core.errors import MissingInput, Refused

Make = Callable[..., Any]


@pytest.fixture
def town(make_town: Make) -> Any:
    """A site whose network user has a copy of one key and cannot see the other."""
    made = make_town()
    folder = network.network_folder(made.file)
    folder.mkdir(parents=True)
    shutil.copy2(made.home / "keys" / "supernode.key", folder)
    shutil.rmtree(made.home / "keys")
    return made


def test_the_kit_without_the_signing_key(town: Any) -> None:
    kit = network.load_network_kit(town.file)
    assert kit.roster.address == "127.0.0.1:18443" and kit.plan.simulation is None
    assert network.supernode_key(town.file).parent.name == "net"


def _stray(town: Any) -> None:
    shutil.copy2(network.supernode_key(town.file), town.home / "kit" / "gift.txt")


def _huge(town: Any) -> None:
    with (town.home / "kit" / "plan.dsse").open("r+b") as stream:
        stream.truncate(1 << 40)


def _few(town: Any) -> None:
    town.pins = [*town.pins[:1], "ed25519:" + "Q" * 43 + "="]
    town.write_site_file()


FAULTS: dict[str, tuple[type[Exception], Callable[[Any], Any]]] = {
    "no roster": (MissingInput, lambda town: (town.home / "kit" / "roster.dsse").unlink()),
    "no key": (MissingInput, lambda town: network.supernode_key(town.file).unlink()),
    "an open key": (Refused, lambda town: network.supernode_key(town.file).chmod(0o640)),
    "another CA": (Refused, lambda town: (town.home / "kit" / "ca.crt").write_bytes(b"x")),
    "too few signatures": (Refused, _few),
    "a private key in the kit": (Refused, _stray),
    "a file without end": (Refused, _huge),
    "another plan": (Refused, lambda town: town.write_site_file(plans=["sha256:" + "0" * 64])),
    "no supernode.pub": (MissingInput, lambda town: (town.home / "kit/supernode.pub").unlink()),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_with_it_is_refused(town: Any, fault: str) -> None:
    kind, act = FAULTS[fault]
    act(town)
    with pytest.raises(kind):
        network.load_network_kit(town.file)


def test_another_sites_key_is_refused(town: Any, tmp_path: Path) -> None:
    enroll_site("s9", "S9", tmp_path / "s9")
    path = network.supernode_key(town.file)
    path.unlink()
    shutil.copy2(tmp_path / "s9" / "supernode.key", path)
    with pytest.raises(Refused, match="not the key of s0"):
        network.load_network_kit(town.file)


def test_the_secret_is_made_once_for_owner_and_group(town: Any) -> None:
    with pytest.raises(MissingInput):
        network.runtime_secret(town.file, make=False)
    path = network.runtime_secret(town.file, make=True)
    first = path.read_bytes()
    assert len(first) == 64 and stat.S_IMODE(path.stat().st_mode) & ~0o640 == 0
    assert network.runtime_secret(town.file, make=True).read_bytes() == first
    assert network.runtime_secret(town.file, make=False) == path


def test_the_supernode_is_told_address_key_and_port(town: Any) -> None:
    supervisor = network.supernode_supervisor(town.file, network.load_network_kit(town.file))
    words = supervisor._command
    assert words[words.index("--superlink") + 1] == "127.0.0.1:18443"
    assert words[words.index("--port") + 1] == "9094"
    assert "runtime.secret" in words[words.index("--secret") + 1]
    assert not [word for word in words if "signing" in word]


def test_each_start_reads_the_ca_that_was_checked(town: Any) -> None:
    """A kit that is exchanged while the site runs does not reach a SuperNode that dials again."""
    kit = network.load_network_kit(town.file)
    words = network.supernode_supervisor(town.file, kit)._command
    path = Path(words[words.index("--root-certificates") + 1])
    assert path.parent == network.network_folder(town.file)
    (town.home / "kit" / "ca.crt").write_bytes(b"another")
    assert path.read_bytes() == kit.ca_certificate

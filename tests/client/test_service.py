"""The long-lived process: ready, asked over its socket, paused, rotated, stopped."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collegium.client import service as service_module
from collegium.client.approval import loaded
from collegium.client.control import ControlClient, NotLoaded
from collegium.client.rotation import complete_rotation, rotate_key
from collegium.client.service import SiteService
from collegium.core.errors import CollegiumError, Interrupted, NotAvailable, Refused
from collegium.core.messages import Decline, Update
from collegium.core.signing import fingerprint, load_private
from collegium.privacy.ledger import Ledger

Make = Callable[..., Any]


class Idle:
    """A SuperNode that has nothing to do."""

    def next_task(self) -> None:
        return None


class Running:
    """A service in a thread, and the way to ask it."""

    def __init__(self, town: Any) -> None:
        self.stop, ready = threading.Event(), threading.Event()
        self.service = SiteService(town.file, town.kit())
        self.error: BaseException | None = None

        def run() -> None:
            try:
                self.service.run(Idle(), self.stop, on_ready=ready.set)
            except CollegiumError as error:
                self.error = error

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        while not ready.wait(0.05):
            assert self.thread.is_alive(), self.error
        self.client = ControlClient(self.service.socket)

    @property
    def site(self) -> Any:
        """The site inside."""
        return self.service._site

    def end(self) -> BaseException | None:
        """Stop it; return what it ended with."""
        self.client.close()
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()
        return self.error


@pytest.fixture
def town(make_town: Make, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An approved town whose path is short enough for a socket."""
    made = make_town(folder="t")
    made.approve()
    return made


@pytest.fixture
def running(town: Any) -> Any:
    """It runs."""
    made = Running(town)
    yield made
    made.end()


def test_its_standing_follows_its_rounds(town: Any, running: Running) -> None:
    first = running.client.standing()
    assert (first.phase, first.site, first.epsilon, first.job) == ("READY", "s0", 0.0, "")
    assert first.plan_sha256 == town.plan_digest and not first.simulated
    assert running.client.healthy()
    running.site.train(town.ask(running.site))
    then = running.client.standing()
    assert (then.round, then.attempt, then.job) == (1, 1, "0" * 32)
    assert 0 < then.epsilon <= then.max_epsilon == 3.0
    assert then.ledger_head == running.site.ledger.head
    assert running.end() is None
    assert not running.service.socket.exists()


def test_withdraw_pauses_at_once_and_approve_goes_on(town: Any, running: Running) -> None:
    running.client.withdraw()
    assert running.client.standing().phase == "PAUSED"
    assert not (town.home / "state" / "approval.json").exists()
    reply = running.site.train(town.ask(running.site))
    assert Decline.open(reply, running.site.public_key).code == "cancelled"
    running.client.approve(loaded(town.file, town.kit()))
    assert running.client.standing().phase == "READY"
    Update.open(running.site.train(town.ask(running.site)), running.site.public_key)
    running.end()
    town.open().ledger.close()  # and the approval that was written holds


def test_what_the_running_site_has_not_loaded_is_not_approved(town: Any, running: Running) -> None:
    """An administrator who lowered a cap on disk must not believe that it holds already."""
    path = town.home / "state" / "approval.json"
    before = path.read_bytes()
    town.write_site_file(max_epsilon=1.0)
    with pytest.raises(NotLoaded, match="start it again"):
        running.client.approve(loaded(town.file, town.kit()))
    assert path.read_bytes() == before
    town.write_site_file()
    running.client.approve(loaded(town.file, town.kit()))
    assert path.read_bytes() != before


def test_a_withdrawal_while_starting_holds(town: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The site has read its approval already: it opens, and is paused."""
    opening, go_on = threading.Event(), threading.Event()

    def slowly(file: Any, kit: Any) -> Any:
        site = open_site(file, kit)
        opening.set()
        assert go_on.wait(60)
        return site

    open_site = service_module.open_site
    monkeypatch.setattr(service_module, "open_site", slowly)
    service, stop = SiteService(town.file, town.kit()), threading.Event()
    ready = threading.Event()
    thread = threading.Thread(target=service.run, args=(Idle(), stop, ready.set))
    thread.start()
    try:
        assert opening.wait(60)
        client = ControlClient(service.socket)
        assert client.standing().phase == "STARTING"
        client.withdraw()
        assert not (town.home / "state" / "approval.json").exists()
        go_on.set()
        assert ready.wait(60)
        assert client.standing().phase == "PAUSED"
        reply = service._site.train(town.ask(service._site))
        assert Decline.open(reply, service._site.public_key).code == "cancelled"
        client.approve(loaded(town.file, town.kit()))
        assert client.standing().phase == "READY"
        client.close()
    finally:
        go_on.set()
        stop.set()
        thread.join(60)


def test_without_a_new_approval_a_withdrawn_site_does_not_start(
    town: Any, running: Running
) -> None:
    running.client.withdraw()
    running.end()
    with pytest.raises(Refused, match="has not approved"):
        town.open()


def test_a_cancelled_job_is_declined_over_a_restart(town: Any, running: Running) -> None:
    assert not running.client.cancel("0" * 32)  # the ledger has none such yet
    assert running.client.standing().cancelled == ("0" * 32,)
    running.end()
    site = town.open()
    reply = site.train(town.ask(site))
    assert Decline.open(reply, site.public_key).code == "cancelled"
    site.ledger.close()


def test_rotation_hands_the_ledger_over_and_pauses(town: Any, running: Running) -> None:
    old, read = fingerprint(running.site.public_key), loaded(town.file, town.kit())
    new = running.client.rotate()
    keys = town.home / "keys"
    assert fingerprint(load_private(keys / "signing.pem").public_key()) == new != old
    assert fingerprint(load_private(keys / "signing.pem.old").public_key()) == old
    assert running.client.standing().phase == "PAUSED"
    with pytest.raises(Refused):
        running.client.approve(read)  # the roster names the old key
    running.end()
    with pytest.raises(Refused, match="not the key"):
        town.kit()
    assert _opens(town, load_private(keys / "signing.pem"))


def _opens(town: Any, key: Any) -> bool:
    file = town.file
    ledger = Ledger(
        file.ledger_path, file.data.asset, file.policy.budget, key, anchor=file.anchor_path
    )
    kinds = [entry.kind for entry in ledger.entries()]
    ledger.close()
    return kinds[-1] == "key-rotate"


@pytest.mark.parametrize("where", ["before the ledger", "before the files", "between the files"])
def test_a_crash_in_a_rotation_loses_no_key(
    town: Any, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    site = town.open()
    keys, ledger = town.home / "keys", town.file.ledger_path

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    rename, seen = Path.rename, []

    def second(self: Path, target: Path) -> Path:
        seen.append(self.name)
        if len(seen) == 2:
            raise Killed
        return rename(self, target)

    with monkeypatch.context() as patch:
        if where == "before the ledger":
            patch.setattr(site.ledger, "rotate", die)
        elif where == "before the files":
            patch.setattr("collegium.client.rotation._rename", die)
        else:
            patch.setattr(Path, "rename", second)
        with pytest.raises(Killed):
            rotate_key(site.ledger, keys)
    site.ledger.close()
    assert complete_rotation(keys, ledger) == (where != "before the ledger")
    assert not complete_rotation(keys, ledger)
    key = load_private(keys / "signing.pem")
    assert _opens(town, key) == (where != "before the ledger")


def test_a_ledger_whose_disk_failed_ends_the_process_with_75(
    town: Any, running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closes itself; only opening it again verifies what is on disk."""
    anchor = running.site.ledger._anchor

    def full(entry: object) -> None:
        raise OSError(28, "no space left")

    monkeypatch.setattr(anchor, "write", full)
    reply = running.site.train(town.ask(running.site))
    assert Decline.open(reply, running.site.public_key).code == "internal"
    running.thread.join(30)
    assert isinstance(running.error, Interrupted) and running.error.exit_code == 75


def test_a_second_process_is_refused_and_the_first_goes_on(town: Any, running: Running) -> None:
    second = SiteService(town.file, town.kit())
    with pytest.raises(Refused, match="running"):
        second.run(Idle(), threading.Event())
    assert running.client.standing().phase == "READY"


def test_a_refusal_leaves_no_socket_behind(make_town: Make) -> None:
    town = make_town(folder="u")
    service = SiteService(town.file, town.kit())
    with pytest.raises(Refused, match="has not approved"):
        service.run(Idle(), threading.Event())
    with pytest.raises(NotAvailable):
        ControlClient(service.socket)

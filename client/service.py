"""The long-lived process beside the records: site, executor, control plane, orderly end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.enroll import SIGNING_KEY
from ..core.errors import Interrupted, Refused
from ..core.signing import load_private
from ..core.site_file import SiteFile
from .approval import approval_of, loaded, withdraw, write_approval
from .control import SOCKET, ControlServer, Loaded, Phase, Standing, not_loaded
from .process import open_site
from .rotation import rotate_key
from .supervisor import Supervisor
from .words import own_version

if TYPE_CHECKING:
    from .executor import Link
    from .kit import Kit
    from .site import Site

logger = logging.getLogger(__name__)

_GRACE_S = 20.0
"""How long a training may go on after a signal; a cut one is repeated at no further charge."""
_LOOK_S = 0.2


class SiteService:
    """Opens a site, answers its SuperNode, and is the board of its control plane."""

    def __init__(self, file: SiteFile, kit: Kit, *, supernode: Supervisor | None = None) -> None:
        """``supernode`` is shown in the status where this process supervises it."""
        self._file, self._kit, self._supernode = file, kit, supernode
        self._site: Site | None = None
        self._stopping, self._rotated, self._withdrawn = False, False, False
        self._one = threading.Lock()  # of approve, withdraw, cancel, rotate: gRPC has threads
        self._started_at = time.time()
        self._spent: tuple[str, float] = ("", 0.0)

    @property
    def socket(self) -> Path:
        """Return where the control plane listens."""
        return self._file.state_path / SOCKET

    def run(
        self,
        link: Link,
        stop: threading.Event,
        on_ready: Callable[[], None] | None = None,
    ) -> None:
        """Answer tasks from ``link`` until ``stop`` is set; ``on_ready`` is called once it can.

        Raises what ``open_site`` raises, ``Refused`` when the site runs already, and
        ``Interrupted`` (75) when a training was cut or the ledger's disk failed.
        """
        control = ControlServer(self, self.socket)
        try:
            site = open_site(self._file, self._kit)
            with self._one:
                site.brake.paused = self._withdrawn
                self._site = site
            try:
                self._answer(site, link, stop, control, on_ready)
            finally:
                site.ledger.close()
        finally:
            control.close()

    def _answer(
        self,
        site: Site,
        link: Link,
        stop: threading.Event,
        control: ControlServer,
        on_ready: Callable[[], None] | None,
    ) -> None:
        from .app import make_app
        from .executor import Executor

        executor = Executor(
            link,
            make_app(site),
            apps=self._kit.roster.apps,
            grid_s=self._file.federation.reply_grid_s,
        )
        worker = threading.Thread(target=executor.run, args=(stop,), name="executor", daemon=True)
        worker.start()
        control.serving(ready=True)
        logger.info("site %s is ready", site.name)
        if on_ready is not None:
            on_ready()
        while not stop.wait(_LOOK_S):
            if not worker.is_alive():
                raise Interrupted("the executor ended by itself", cure="see the log; start again")
            if not site.ledger.is_open:
                raise Interrupted(
                    "the ledger closed itself",
                    why="a write to it or to its anchor failed: the disk is full or failing",
                    cure="make room, then start again; opening verifies what was written",
                )
        self._stopping = True
        control.serving(ready=False)
        worker.join(_GRACE_S)
        if worker.is_alive():
            raise Interrupted(
                "a training was cut",
                why="it did not end in time",
                cure="start again: it is repeated under the same charge",
            )

    # --- the board --------------------------------------------------------------------------

    def standing(self) -> Standing:
        """Return where the site stands; nothing in it depends on a record's value."""
        supernode, site = self._supernode, self._site
        start = Standing(
            site=self._file.site.name,
            version=own_version(),
            plan_sha256=self._kit.plan.digest,
            started_at=self._started_at,
            supernode=supernode.state if supernode else "elsewhere",
            supernode_restarts=supernode.restarts if supernode else 0,
        )
        if site is None:
            return start
        newest = next((e for e in reversed(site.ledger.entries()) if e.kind == "reserve"), None)
        return replace(
            start,
            phase=self._phase(site),
            simulated=site.reproducible_noise,
            ledger_head=site.ledger.head,
            epsilon=self._epsilon(site),
            max_epsilon=site.ledger.budget.epsilon,
            job=newest.job if newest else "",
            round=newest.round if newest else 0,
            attempt=newest.attempt if newest else 0,
            cancelled=tuple(sorted(site.brake.cancelled)),
            device=site.device,
        )

    def approve(self, read: Loaded) -> None:
        """Approve what is loaded, in writing, and go on; raises ``Refused`` if ``read`` is not."""
        with self._one:
            site = self._opened()
            if self._rotated:
                raise Refused(
                    "the key of this site was rotated",
                    why="the roster still names the old one",
                    cure="send a new request, install the new kit, start again, then approve",
                )
            if read != loaded(self._file, self._kit):
                raise not_loaded()
            key = load_private(self._file.keys_path / SIGNING_KEY)
            write_approval(self._file, approval_of(self._file, self._kit, site.records), key)
            site.brake.paused = self._withdrawn = False
        logger.info("the plan was approved by the site")

    def withdraw(self) -> None:
        """Take the approval back, also while starting; what trains ends before its next step."""
        if self._site is not None:  # at once: an approval that is being written takes a while
            self._site.brake.paused = True
        with self._one:
            self._withdrawn = True
            withdraw(self._file)
            if self._site is not None:
                self._site.brake.paused = True
        logger.info("the approval was withdrawn by the site")

    def cancel(self, job: str) -> bool:
        """Stop a job for good, also one that is yet to come; return whether the ledger has it."""
        with self._one:
            site = self._opened()
            known = any(entry.job == job for entry in site.ledger.entries())
            site.cancel(job)
        logger.info("a job was cancelled by the site%s", "" if known else " (the ledger has none)")
        return known

    def rotate(self) -> str:
        """Make a new signing key and pause: the roster names the old one."""
        with self._one:
            site = self._opened()
            site.brake.paused = self._rotated = True  # also where it fails between two files
            new = rotate_key(site.ledger, self._file.keys_path)
            withdraw(self._file)
        logger.info("the signing key was rotated")
        return new

    def _opened(self) -> Site:
        if self._site is None:
            raise Refused("the site is still starting", cure="ask again in a moment")
        return self._site

    def _phase(self, site: Site) -> Phase:
        if self._stopping:
            return "STOPPING"
        if site.brake.paused:
            return "PAUSED"
        return "TRAINING" if site.busy else "READY"

    def _epsilon(self, site: Site) -> float:
        """Return what is spent; computed once per ledger head, for it takes a while."""
        head = site.ledger.head
        if self._spent[0] != head:
            self._spent = (head, site.ledger.enforced())
        return self._spent[1]

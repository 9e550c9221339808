"""A site and the coordinator's signed questions to it."""

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.core.digest import sha256_hex
from collegium.core.messages import BadMessage, Decline, Invitation, Sealed, Update
from collegium.core.signing import load_private
from collegium.core.site_file import SiteFile

JOB = "0" * 32


class Counter:
    """One site of a lab, asked by hand."""

    def __init__(self, lab: Any, name: str = "s0") -> None:
        self.lab, self.name = lab, name
        self.site, self.key = lab.sites[name], lab.consortium.key
        self.ledger = lab.consortium.ledgers[name]
        self.layout = lab.consortium.layout
        self.public = self.site._key.public_key()

    def base(self, shift: float = 0.0) -> np.ndarray:
        """The open model, moved a little."""
        return (self.lab.consortium.opened + np.float32(shift)).astype(np.float32)

    def ask(self, *, base: np.ndarray | None = None, key: Any = None, **changes: Any) -> Sealed:
        """A signed invitation to round 1."""
        payload = (self.base() if base is None else base).astype("<f4").tobytes()
        values: dict[str, Any] = {
            "job": JOB, "site": self.name, "plan": self.lab.plan.digest, "round": 1, "attempt": 1,
            "base_sha256": sha256_hex(payload), "layout": self.layout.digest,
            "deadline": time.time() + 60, "nonce": "n",
            "site_ledger_head": self.ledger.head if self.kinds[1:] else "",
        }  # fmt: skip
        return Invitation(**values | changes).seal(key or self.key, payload)

    def code(self, reply: Sealed) -> str:
        """The code of a decline, or ok for an update."""
        try:
            return Decline.open(reply, self.public).code
        except BadMessage:
            Update.open(reply, self.public)
            return "ok"

    @property
    def kinds(self) -> list[str]:
        """What stands in the ledger, countersigned heads left out."""
        kinds = [entry.kind for entry in self.ledger.entries()]
        return [kind for kind in kinds if kind != "witness"]


@pytest.fixture
def make_counter(make_lab: Any) -> Any:
    """The builder of counters."""

    def make(plan: Any = None, **options: Any) -> Counter:
        return Counter(make_lab(plan, **options))

    return make


class Town:
    """A real federation of a tiny plan: members' signatures, kits, one site's own folder."""

    def __init__(self, folder: Path, plan: Any, *, lab: bool = False) -> None:
        from dataclasses import replace

        from collegium.core.plan_federation import Federation

        self.folder, self.lab = folder, lab
        federation = Federation(address="127.0.0.1:18443", coordinator="uni-x", signatures=2)
        self.plan = replace(plan, federation=federation)
        self.name = plan.sites[0].name
        self.home = folder / "home"
        self.pins: list[str] = []
        (self._provision_lab if lab else self._provision)()
        self.coordinator = load_private(folder / "out" / "coordinator" / "keys" / "coordinator.pem")
        shutil.copytree(folder / "out" / "kits" / self.name, self.home / "kit")
        self.write_records()
        self.write_site_file()

    def _provision(self) -> None:
        from collegium.core.agreement_files import open_agreement, sign_agreement
        from collegium.core.enroll import enroll_member, enroll_site
        from collegium.server.provision import provision

        requests, out = self.folder / "requests", self.folder / "out"
        requests.mkdir(parents=True)
        keys = []
        for name in ("ann", "bo"):
            made = enroll_member(name, f"{name}-clinic", self.folder / name)
            shutil.copy(made.request, requests)
            keys.append(load_private(self.folder / name / "member.pem"))
            self.pins.append(made.fingerprint)
        for site in self.plan.sites:
            home = self.home / "keys" if site.name == self.name else self.folder / site.name
            shutil.copy(enroll_site(site.name, f"{site.name}-clinic", home).request, requests)
        provision(self.plan, requests, out, app=b"bundle")
        for key in keys:
            sign_agreement(open_agreement(out / "agreement"), key)
        provision(self.plan, requests, out, app=b"bundle")

    def _provision_lab(self) -> None:
        from collegium.server.provision import provision_lab

        provision_lab(self.plan, self.folder / "out", address="127.0.0.1:18443", app=b"bundle")
        shutil.copytree(self.folder / "out" / "lab" / "sites" / self.name, self.home / "keys")

    def write_records(self, *, count: int = 24, change: float = 0.0, name: str = "x.npz") -> None:
        """The tiny records of this site as an explicit split."""
        x = np.random.default_rng([11, 0]).uniform(-1, 1, (count + 6, 3)).astype(np.float32)
        x[0, 1] += np.float32(change)
        y = (x[:, 0] > 0).astype(np.int64)
        np.savez(
            self.home / name, train_x=x[:count], train_y=y[:count], test_x=x[count:],
            test_y=y[count:],
        )  # fmt: skip

    def write_site_file(self, **changes: Any) -> None:
        """site.toml with the plan's own caps; ``changes`` replace or add keys of [policy]."""
        import tomli_w

        privacy, rounds = self.plan.privacy, self.plan.rounds
        policy = {
            "max_epsilon": privacy.epsilon, "delta": privacy.delta, "unit": privacy.unit,
            "relation": privacy.relation, "max_steps": rounds.count * rounds.local_steps,
            "max_sampling_rate": privacy.sampling_rate, "max_clip_norm": privacy.clip_norm,
            "signers": self.pins, "signatures": len(self.pins), "min_sites": 2,
        }  # fmt: skip
        tables = {
            "schema": 1,
            "site": {"name": self.name, "mode": "simulation" if self.lab else "real"},
            "data": {"asset": "ward", "reader": "npz", "path": "x.npz", "label": "y"},
            "policy": policy | changes,
            "ledger": {"path": "ledger/ward.sqlite", "anchor": "elsewhere/ward.anchor"},
            "federation": {"kit": "kit", "reply_grid_s": 0.05},
        }
        (self.home / "site.toml").write_text(tomli_w.dumps(tables))

    @property
    def file(self) -> SiteFile:
        """The site file as it stands."""
        return SiteFile.load(self.home / "site.toml")

    def kit(self) -> Any:
        """The checked kit."""
        from collegium.client.kit import load_kit

        return load_kit(self.file)

    def approve(self) -> None:
        """Approve what lies here."""
        from collegium.client.approval import approval_of, write_approval
        from collegium.client.words import read_records

        file, kit = self.file, self.kit()
        key = load_private(file.keys_path / "signing.pem")
        write_approval(file, approval_of(file, kit, read_records(file, kit.plan)), key)

    def open(self) -> Any:
        """The site, opened as its process does."""
        from collegium.client.process import open_site

        return open_site(self.file, self.kit())

    def ask(self, opened: Any, /, *, base: Any = None, key: Any = None, **changes: Any) -> Sealed:
        """A signed invitation to round 1 of this plan."""
        payload = (opened._trainer.open_vector if base is None else base).astype("<f4").tobytes()
        values: dict[str, Any] = {
            "job": JOB, "site": self.name, "plan": self.plan_digest, "round": 1, "attempt": 1,
            "base_sha256": sha256_hex(payload), "layout": opened._trainer.layout.digest,
            "deadline": time.time() + 60, "nonce": "n", "site_ledger_head": "",
        }  # fmt: skip
        return Invitation(**values | changes).seal(key or self.coordinator, payload)

    @property
    def plan_digest(self) -> str:
        """The digest that everyone signed."""
        return str(self.kit().plan.digest)


@pytest.fixture
def make_town(tmp_path: Path, make_plan: Any) -> Any:
    """The builder of real federations; small: two sites, three rounds."""

    def make(plan: Any = None, *, lab: bool = False, folder: str = "town") -> Town:
        return Town(tmp_path / folder, plan or make_plan(2), lab=lab)

    return make

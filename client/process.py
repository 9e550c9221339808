"""A real site from its own file and the kit: policy first, records last."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.enroll import SIGNING_KEY
from ..core.errors import NotAvailable
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..core.signing import load_private, public_from_fingerprint
from ..core.site_file import SiteFile
from ..data.site_data import SiteData
from ..models import registry
from ..privacy.ledger import Ledger
from ..privacy.noise import NoiseSource, SeededNoise, SystemNoise
from .approval import require_agreed, require_records
from .evidence import Evidence
from .halt import Brake
from .identity import Identity
from .policy import Policy
from .reach import round_reach
from .site import Site
from .spool import Spool
from .train import Trainer
from .words import (
    mechanisms,
    open_ledger,
    policy_of,
    read_records,
    require_policy,
    seeded_noise,
)

if TYPE_CHECKING:
    from .kit import Kit


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """All that a site is without its records: the resident model, every mechanism, the policy."""

    trainer: Trainer
    specs: dict[str, MechanismSpec]
    policy: Policy
    seeded: bool

    def spec(self, site: str) -> MechanismSpec:
        """Return what this site will execute in each round."""
        return self.specs[site]


def open_site(file: SiteFile, kit: Kit) -> Site:
    """Return the site, ready to answer; its ledger is open and closed by ``site.ledger.close``.

    Nothing of the records is read before kit, policy and (for a real site) approval have
    passed. Raises ``Refused``, ``MissingInput``, ``InvalidInput``, ``NotAvailable`` and the
    ledger's errors; all of them are for the site's own people.
    """
    prepared = prepare(file, kit)
    key = load_private(file.keys_path / SIGNING_KEY)
    approval = None if prepared.seeded else require_agreed(file, kit, key.public_key())
    data = read_records(file, kit.plan)
    if approval is not None:
        require_records(approval, file, data)
    ledger = open_ledger(file, prepared.policy, key, data)
    try:
        return _site(file, kit, prepared, key=key, data=data, ledger=ledger)
    except BaseException:
        ledger.close()
        raise


def prepare(file: SiteFile, kit: Kit) -> Prepared:
    """Return the model on its device and what will be executed; reads no records.

    The policy comes first: a model that it does not allow is not even built. Raises ``Refused``
    for a plan outside it, and when seeded noise is asked for outside a lab roster.
    """
    plan = kit.plan
    seeded = seeded_noise(file, kit)
    policy = policy_of(file, private=plan.privacy.enabled or not seeded)
    require_policy(policy, plan, mechanisms(plan, trainable_digest="")[file.site.name])
    if seeded:
        one_thread()
    hardware = file.hardware
    trainer = Trainer(
        registry.build(plan.model),
        plan,
        device=device_of(hardware.device),
        precision=hardware.precision,
        micro_batch=hardware.micro_batch,
        compile=hardware.compile,
    )
    return Prepared(
        trainer=trainer,
        specs=mechanisms(plan, trainable_digest=trainer.layout.digest),
        policy=policy,
        seeded=seeded,
    )


def device_of(name: str) -> str:
    """Return the torch device; ``auto`` is the first GPU, else the CPU.

    Raises ``NotAvailable`` for one that is not here.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    here = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    kind, _, number = name.partition(":")
    found = here[kind]() if kind in here else True
    if not found or (kind == "cuda" and int(number or 0) >= torch.cuda.device_count()):
        raise NotAvailable(
            f"the device '{name}' is not here",
            why="torch finds no such accelerator",
            cure="write [hardware] device = 'auto', or install the driver",
        )
    return name


def one_thread() -> None:
    """Keep the sums of a batch the same on every machine, as the simulator does."""
    import torch

    torch.set_num_threads(1)


def _site(
    file: SiteFile,
    kit: Kit,
    prepared: Prepared,
    *,
    key: Ed25519PrivateKey,
    data: SiteData,
    ledger: Ledger,
) -> Site:
    plan, name, state = kit.plan, file.site.name, file.state_path
    layout = prepared.trainer.layout
    sizes = tuple(math.prod(shape) for shape in layout.shapes)
    evidence = Evidence(state / "evidence.jsonl", sizes=sizes) if plan.privacy.enabled else None
    return Site(
        identity=Identity(
            name=name, key=key, coordinator=public_from_fingerprint(kit.roster.coordinator_key)
        ),
        plan=plan,
        spec=prepared.spec(name),
        data=data,
        trainer=prepared.trainer,
        policy=prepared.policy,
        ledger=ledger,
        spool=Spool(state / "spool"),
        noise=_noise(plan, seeded=prepared.seeded),
        step_bound=round_reach(plan, prepared.specs, size=layout.size),
        evidence=evidence,
        brake=Brake(state / "cancelled"),
    )


def _noise(plan: Plan, *, seeded: bool) -> NoiseSource:
    if not seeded:
        return SystemNoise()
    return SeededNoise(plan.simulation.seed if plan.simulation else 0)

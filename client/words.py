"""What a site's own file says, as policy, mechanisms, records and ledger; imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..core.errors import InvalidInput, MissingInput, Problem, Refused
from ..core.mechanism import MechanismSpec
from ..core.plan import Plan
from ..core.plan_model import ModelRef
from ..core.site_file import SiteFile
from ..data.growing import chunks_of
from ..data.readers import read_site_data
from ..data.site_data import Records, SiteData
from ..models import registry
from ..privacy.derive import evaluation_mechanism, mechanism, noise_multiplier
from ..privacy.fingerprint import Export, Register, found_digests, record_digests
from ..privacy.ledger import Ledger
from ..privacy.ledger_files import open_for_records
from ..privacy.ledger_rows import LedgerEntry, verify_chain
from ..privacy.ledger_store import open_readonly, read_rows
from .policy import Policy, at_most

if TYPE_CHECKING:
    from .kit import Kit

REGISTER = "records.sqlite"


def own_version() -> str:
    """Return the version of collegium that is installed, '' in a checkout that never was."""
    try:
        return version("collegium")
    except PackageNotFoundError:
        return ""


def seeded_noise(file: SiteFile, kit: Kit) -> bool:
    """Return whether this site's noise is seeded: then there is no guarantee, and all say so.

    Raises ``Refused`` unless the site's own mode and the roster agree on it.
    """
    simulated = file.site.mode == "simulation"
    if simulated != kit.roster.lab:
        raise Refused(
            "seeded noise needs both a site in simulation mode and a lab roster",
            why=f"[site] mode is '{file.site.mode}', the roster is "
            + ("a lab's" if kit.roster.lab else "a real one"),
            cure="use a lab kit with mode = 'simulation', or a real kit with mode = 'real'",
        )
    return simulated


def mechanisms(plan: Plan, *, trainable_digest: str) -> dict[str, MechanismSpec]:
    """Return what each site of the plan executes in a round; imports no torch."""
    sigma = noise_multiplier(plan)
    return {
        ref.name: mechanism(plan, ref, noise_multiplier=sigma, trainable_digest=trainable_digest)
        for ref in plan.sites
    }


def require_policy(policy: Policy, plan: Plan, spec: MechanismSpec) -> None:
    """Raise ``Refused`` with every rule of the site that the plan breaks."""
    found = policy.objections(plan, spec)
    if found:
        raise Refused(
            "the plan is outside this site's policy",
            why="; ".join(f"{verdict.code}: {verdict.reason}" for verdict in found),
            cure="agree on another plan, or change [policy] in site.toml",
        )


def policy_of(file: SiteFile, *, private: bool = True) -> Policy:
    """Return the policy that site.toml spells out; ``private`` False under a lab roster alone."""
    words = file.policy
    return Policy(
        budget=words.budget,
        max_steps=words.max_steps,
        max_sampling_rate=words.max_sampling_rate,
        max_clip_norm=words.max_clip_norm,
        models=words.models,
        plans=words.plans,
        plugins=words.plugins,
        min_sites=words.min_sites,
        metrics=words.metrics,
        public_test=words.public_test,
        private=private,
    )


def read_records(file: SiteFile, plan: Plan, *, seed: int | None = None) -> SiteData:
    """Return the site's records as its model reads them; texts become tokens here.

    ``seed`` makes another split, for simulations. Raises ``InvalidInput`` for records of another
    shape than the model's, and whatever ``read_site_data`` raises.
    """
    data = read_site_data(file, plan, seed=seed)
    held = data.calibration_x
    return replace(
        data,
        train_x=_shaped(data.train_x, plan.model, file),
        test_x=_shaped(data.test_x, plan.model, file),
        calibration_x=None if held is None else _shaped(held, plan.model, file),
    )


def export_of(data: SiteData, salt: bytes) -> Export:
    """Return the records of every part by digest: what the asset holds, however it is split."""
    parts = [(data.train_x, data.train_y), (data.test_x, data.test_y)]
    ids = [data.train_ids, data.test_ids]
    if data.calibration_x is not None and data.calibration_y is not None:
        parts.append((data.calibration_x, data.calibration_y))
        ids.append(data.calibration_ids)
    encoded: list[bytes] = []
    for x, y in parts:
        for chunk in chunks_of(x):
            encoded += record_digests(x[chunk], y[chunk], salt)
    known = [each for each in ids if each is not None]
    if len(known) < len(ids):
        return Export(encoded=encoded)
    if data.other_ids is not None:
        known.append(data.other_ids)
    return Export(encoded=encoded, found=found_digests(np.concatenate(known), salt))


def open_ledger(
    file: SiteFile,
    policy: Policy,
    key: Ed25519PrivateKey,
    data: SiteData,
    *,
    attach: str | None = None,
) -> Ledger:
    """Open the asset's ledger for these records, with the site's register and anchor.

    ``attach`` is the note under which an export that it does not know becomes the asset's.
    """
    register = Register(file.state_path / REGISTER)
    return open_for_records(
        file.ledger_path,
        file.data.asset,
        policy.budget,
        key,
        register=register,
        export=export_of(data, register.salt),
        anchor=anchor_of(file),
        attach=attach is not None,
        note=attach or "",
    )


def ledger_entries(file: SiteFile) -> list[LedgerEntry]:
    """Return the entries of the asset's ledger, none before it is made; needs no key.

    Raises ``LedgerTampered`` or ``Interrupted`` for one that cannot be read.
    """
    try:
        with open_readonly(file.ledger_path) as connection:
            return verify_chain(read_rows(connection), None)
    except MissingInput:
        return []


def budget_words(
    file: SiteFile, kit: Kit, spec: MechanismSpec, entries: Sequence[LedgerEntry]
) -> str:
    """Return in words how much of the asset's budget this plan may use up at most."""
    plan, cap = kit.plan, file.policy.max_epsilon
    if not plan.privacy.enabled:
        return "nothing is counted: the plan trains without noise"
    ref = plan.site(file.site.name)
    most = at_most(policy_of(file), plan, ref, spec, entries)
    many = f"repeated rounds and further jobs, up to max_steps {file.policy.max_steps}, included"
    if most < cap:
        return f"at most epsilon {most:.3f} of max_epsilon {cap:g}, {many}"
    if evaluation_mechanism(plan, ref) is not None:
        many = "one evaluation of each further job included"
    return f"at most all of max_epsilon {cap:g}, {many}"


def anchor_of(file: SiteFile) -> Path:
    """Return where the ledger's anchor lies; without a volume of its own, in the state folder."""
    return file.anchor_path or file.state_path / "ledger.anchor"


def _shaped(x: Records, model: ModelRef, file: SiteFile) -> Records:
    """Return records as the model reads them: a row of pixels as an image, texts as tokens."""
    shape = registry.input_shape(model)
    if x.ndim == 2 and x.shape[1:] != shape and x.shape[1] == math.prod(shape):
        x = x.reshape(len(x), *shape)
    if x.dtype.kind in "OUS" or x.shape[1:] == shape:
        return registry.encode(model, x) if len(x) else np.empty((0, *shape), dtype=np.float32)
    problem = Problem(
        where=f"[data] reader {file.data.reader}, asset {file.data.asset}",
        what=f"a record has the shape {x.shape[1:]}, the plan's model reads {shape}",
        why="every site trains the same model on records of one shape",
        cure="export the records in the model's shape",
    )
    raise InvalidInput(f"the records of site '{file.site.name}'", [problem])

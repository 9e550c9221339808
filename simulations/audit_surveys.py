"""What a job asked its sites once: charged once, repeated as the same bytes, noised as charged."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import chi2

from ..client.spool import Spool, digest_of
from ..client.survey import exact_sums, survey_mechanisms
from ..client.train import Trainer
from ..core.messages import ONCE, STATISTICS, Sealed
from ..core.plan import Plan
from ..models.fitted import OFFSET, TEMPERATURE, build_for
from ..privacy.conformance import Finding, checked, measured, unexercised
from ..privacy.derive import questions
from ..privacy.ledger_rows import LedgerEntry
from ..privacy.noise import Floats
from ..server.models_out import VECTOR_FILE, read_vector_file
from ..server.survey import NAMES, set_values
from .records import split_records

CHARGED, NOISE = "asked once is charged once", "noise of what is asked once"


def survey_findings(
    plan: Plan, folder: Path, entries: Mapping[str, Sequence[LedgerEntry]], *, custom: bool
) -> list[Finding]:
    """Return what ledgers, sites' stored replies and the coordinator say of each question.

    ``entries`` are each site's ledger. Nothing for a plan that asks nothing beside its rounds.
    """
    if not any(questions(plan, site) for site in plan.sites):
        return []
    kept = _kept(folder)
    found = [_charged(plan, folder, site.name, entries[site.name], kept) for site in plan.sites]
    if plan.statistics is None and plan.calibration is None:
        return found
    if custom or not kept:
        why = "the records are not the plan's own" if custom else "no answer is on file yet"
        return [*found, unexercised(NOISE, "all sites", why)]
    return [*found, _noise(plan, folder, kept)]


def _charged(
    plan: Plan,
    folder: Path,
    name: str,
    rows: Sequence[LedgerEntry],
    kept: Mapping[int, Mapping[str, Sealed]],
) -> Finding:
    """Each reserve of a question has one commit, of the bytes that site and coordinator hold."""
    wanted = questions(plan, plan.site(name))
    reserves = [row for row in rows if row.kind == "reserve" and row.round == ONCE]
    commits = {
        (row.job, row.attempt): row.update_sha256
        for row in rows
        if row.kind == "commit" and row.round == ONCE
    }
    spool, right = Spool(folder / "sites" / name / "spool"), 0
    for row in reserves:
        reply, sent = spool.get(row.job, ONCE, row.attempt), commits.get((row.job, row.attempt))
        told = kept.get(row.attempt, {}).get(name)
        holds = row.spec == wanted.get(row.attempt) and reply is not None
        holds = holds and sent == digest_of(reply) if reply else False
        right += holds and (told is None or digest_of(told) == sent)
    text = f"{right} of {len(reserves)} reserves committed with the stored bytes"
    unpaid = [
        NAMES[question]
        for question, answers in kept.items()
        if name in answers and not any(row.attempt == question for row in reserves)
    ]
    note = f"answered without a reserve: {', '.join(unpaid)}" if unpaid else ""
    return checked(CHARGED, name, text, holds=right == len(reserves) and not unpaid, note=note)


def _noise(plan: Plan, folder: Path, kept: Mapping[int, Mapping[str, Sealed]]) -> Finding:
    """What was told, less the exact sums, over the charged deviation: a sum of squares chi^2_k."""
    trainer, records = Trainer(build_for(plan), plan), split_records(plan).by_site
    vector = trainer.open_vector
    if (folder / VECTOR_FILE).is_file():
        identity = {OFFSET: np.zeros(len(plan.model.classes)), TEMPERATURE: np.ones(1)}
        vector = set_values(trainer.layout, trainer.fitted, read_vector_file(folder)[0], identity)
    parts: list[Floats] = []
    for question, answers in kept.items():
        if question != STATISTICS and not (folder / VECTOR_FILE).is_file():
            continue
        for name, answer in answers.items():
            spec = survey_mechanisms(plan, name)[question]
            exact = exact_sums(plan, question, spec, records[name], trainer=trainer, vector=vector)
            told = np.frombuffer(answer.payload, dtype="<f4").astype(np.float64)
            parts.append((told - exact) / spec.noise_std)
    z = np.concatenate(parts)
    squares = float(np.dot(z, z))
    p = 2 * min(float(chi2.cdf(squares, len(z))), float(chi2.sf(squares, len(z))))
    text = f"deviation {math.sqrt(squares / len(z)):.3f} of the charged one, {len(z):,} sums"
    return measured(NOISE, "all sites", text, [min(1.0, p)])


def _kept(folder: Path) -> dict[int, dict[str, Sealed]]:
    """Return the signed answers that the coordinator holds, by question and site."""
    path = folder / "rounds" / "rounds.sqlite"
    if not path.is_file():
        return {}
    found: dict[int, dict[str, Sealed]] = {}
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        for question, name in NAMES.items():
            row = database.execute(
                "SELECT value FROM run WHERE key = ?", (f"once.{name}",)
            ).fetchone()
            if row is not None:
                answers: Mapping[str, Any] = json.loads(row[0])["answers"]
                found[question] = {site: _sealed(answer) for site, answer in answers.items()}
    return found


def _sealed(answer: Mapping[str, str]) -> Sealed:
    return Sealed(
        header=answer["header"].encode(),
        signature=bytes.fromhex(answer["signature"]),
        payload=bytes.fromhex(answer["payload"]),
    )

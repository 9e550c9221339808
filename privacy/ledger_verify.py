"""Verify a privacy ledger, or its jsonl export, and recompute every epsilon: one plain script.

Needs Python 3.11, cryptography and dp-accounting; nothing of Collegium. Usage:
    python ledger_verify.py FILE --key KEY [--anchor FILE] [--heads FILE]

KEY: the site's key in force, a public PEM or fingerprint (ed25519:...), from the site itself.
HEADS: a JSON list of heads that were seen, {"SITE": head}, or a run's result.json (SITE is FILE's
name). Exit codes: 0 ok, 2 tampered, 3 rolled back or forked, 4 over budget, 5 an epsilon is
larger than claimed; 64 usage, 66 missing file.

Checked: table and triggers, each row's form, sequence, SHA-256 chain, every signature over every
change of key, what may follow what, countersigned heads, anchor, known heads. Recomputed: epsilon
after EVERY reserve. Under one job and plan by privacy loss distributions (dp-accounting, at the
claim's own discretization; composed row by row, which only rounds up, and anew from the beginning
where that misses the claim) or by Renyi divergences (own formulas, integer orders), whichever is
smaller; from a second job or plan on by the Renyi filter. A claim may be 1e-6 too small.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import sqlite3
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

TAMPERED, ROLLED_BACK, OVER_BUDGET, MISMATCH, USAGE, MISSING = 2, 3, 4, 5, 64, 66
BROKEN = (ValueError, LookupError, TypeError, AttributeError, RecursionError, UnsupportedAlgorithm)
TOLERANCE = 1e-6  # rounding of other library versions
FORMAT, ANCHOR, VERSION = "collegium/ledger-export/2", "collegium/ledger-anchor/1", 2
DOMAIN, ROTATE, START = b"collegium/ledger/2", b"collegium/ledger-rotate/1", "sha256:" + "0" * 64
TABLE = {"entries", "entries_no_update", "entries_no_delete", "entries_in_order"}
KINDS = ["genesis", "policy", "reserve", "commit", "abort", "release", "witness", "key-rotate"]
FIELDS = {  # of each kind of body beside kind, at and asset; then of the objects in them
    "genesis": "budget public_key records",
    "policy": "budget records note",
    "reserve": "job round attempt plan base_sha256 spec steps claim versions rng",
    "commit": "job round attempt steps update_sha256",
    "abort": "job round attempt note",
    "release": "job round model_sha256 note",
    "witness": "evidence",
    "key-rotate": "public_key proof",
    "budget": "epsilon delta unit relation",
    "spec": "unit relation clip_norm noise_multiplier sampler sampling_rate public_records"
    " normaliser steps batch_cap delta trainable_digest",
    "claim": "epsilon method interval",
    "evidence": "head key message signature",
}
INTEGERS = {"round", "attempt", "steps", "public_records", "batch_cap"}
PRICED = ("noise_multiplier", "sampling_rate", "batch_cap", "public_records")  # of a step
NUMBERS = {"at", "epsilon", "delta", "clip_norm", "normaliser", "interval", *PRICED[:2]}
CANON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
Entry = dict[str, Any]
Step = tuple[Any, ...]
ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 512)


class LedgerError(Exception):
    """What is wrong: an exit code and a reason."""


def load_key(text: str) -> Ed25519PublicKey:
    """Return the key of a fingerprint or a public PEM file; raises ``ValueError``."""
    if text.startswith("ed25519:"):
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text[8:], validate=True))
    if isinstance(key := load_pem_public_key(Path(text).read_bytes()), Ed25519PublicKey):
        return key
    raise ValueError("it is no Ed25519 key")


def read_heads(path: Path, site: str) -> list[str]:
    """Return the heads that a file knows of ``site``: a list, a mapping, or a run's result."""
    known: Any = json.loads(path.read_bytes())
    if isinstance(known, dict):
        sites = known["privacy"]["epsilon_by_site"] if "privacy" in known else known
        told = sites[site] if site in sites or len(sites) != 1 else next(iter(sites.values()))
        known = [told["ledger_head"] if isinstance(told, dict) else told]
    if not isinstance(known, list) or {type(head) for head in known} != {str}:
        raise ValueError("it holds no head")
    return known


def read_rows(path: Path) -> list[tuple[Any, ...]]:
    """Return the raw rows (seq, prev, body, hash, signature) of a ledger or its jsonl export."""
    names = ("seq", "prev", "body", "hash", "signature")
    if (raw := path.read_bytes())[:15] == b"SQLite format 3":
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
            found = db.execute("SELECT name FROM sqlite_master WHERE sql IS NOT NULL")
            version = db.execute("PRAGMA user_version").fetchone()
            if {name for (name,) in found} != TABLE or version != (VERSION,):
                raise ValueError("it does not have a ledger's table and triggers")
            rows = db.execute(f"SELECT {', '.join(names)} FROM entries ORDER BY seq").fetchall()
    else:
        header, *lines = [json.loads(line) for line in raw.decode().splitlines()]
        if header["format"] != FORMAT:
            raise ValueError("it is no export of this version")
        rows = [(*(at[n] for n in names[:4]), bytes.fromhex(at["signature"])) for at in lines]
    if {tuple(map(type, row)) for row in rows} != {(int, str, str, str, bytes)}:
        raise ValueError("it holds no entry, or one of another type")
    return rows


def check_chain(rows: Sequence[tuple[Any, ...]]) -> list[Entry]:
    """Return the bodies, with seq, prev, hash, sig, once form, sequence and chain hold."""
    entries: list[Entry] = []
    head, domain = START, len(DOMAIN).to_bytes(4, "big") + DOMAIN
    for at, (seq, prev, body, digest, signature) in enumerate(rows):
        data = domain + at.to_bytes(8, "big") + prev.encode() + body.encode()
        own = "sha256:" + hashlib.sha256(data).hexdigest()
        if (seq, prev, digest) != (at, head, own):
            raise ValueError(f"entry {at} does not follow from the one before it")
        entry: Any = json.loads(body)
        if CANON.encode(entry) != body or not (entry["kind"] in KINDS and _fits(entry)):
            raise ValueError(f"entry {at} is no entry of this version")
        entries.append({**entry, "seq": at, "prev": prev, "hash": digest, "sig": signature})
        head = digest
    return entries


def _fits(values: Any, form: str = "") -> bool:
    """Return whether a body, or an object in it, holds exactly its fields, each of its type."""

    def holds(name: str, value: Any) -> bool:
        if name in ("budget", "spec", "claim", "evidence"):  # a policy need not touch the budget
            return (value is None and values["kind"] == "policy") or _fits(value, name)
        if name in NUMBERS:
            return type(value) in (int, float) and math.isfinite(value)
        if name in INTEGERS:
            return type(value) is int and 0 <= value < 2**53
        return isinstance(value, dict if name == "versions" else str)

    names = FIELDS[form or values["kind"]].split() + ([] if form else ["kind", "at", "asset"])
    return set(values) == set(names) and all(holds(name, values[name]) for name in names)


def check_signatures(entries: Sequence[Entry], key: Ed25519PublicKey) -> list[str]:
    """Return the key in force at each entry and after the last, which must be ``key``."""
    in_force: list[str] = [entries[0]["public_key"]]
    for entry in entries:
        signer = in_force[-1]
        _signed(signer, entry["sig"], entry["hash"].encode(), f"entry {entry['seq']}")
        if entry["kind"] == "key-rotate":
            signer = entry["public_key"]
            message = {name: entry[name] for name in ("asset", "seq", "prev", "public_key")}
            message = len(ROTATE).to_bytes(4, "big") + ROTATE + CANON.encode(message).encode()
            proof = bytes.fromhex(entry["proof"])
            _signed(signer, proof, message, f"the new key of entry {entry['seq']}")
        in_force.append(signer)
    if load_key(in_force[-1]) != key:
        handed = ", to which it handed over" if key in map(load_key, in_force) else ""
        raise ValueError(f"the given key is not the one in force, {in_force[-1]}{handed}")
    return in_force


def _signed(signer: str, signature: bytes, message: bytes, what: str) -> None:
    try:
        load_key("ed25519:" + signer.removeprefix("ed25519:")).verify(signature, message)
    except InvalidSignature:
        raise ValueError(f"{what} is not signed by its key") from None


def check_story(entries: Sequence[Entry]) -> None:
    """Raise unless each entry may follow the ones before it: budget, attempts, witnesses."""
    heads, seen, cap = set[str](), dict[tuple[Any, ...], Entry](), Entry()
    for entry in entries:
        kind, new = entry["kind"], entry.get("budget")
        rules = [(kind == "genesis") == (entry["seq"] == 0), entry["asset"] == entries[0]["asset"]]
        if new is not None:
            old, cap = cap or new, new
            rules += [new[name] == old[name] for name in ("delta", "unit", "relation")]
            rules += [new["epsilon"] <= old["epsilon"]]
        if kind in ("reserve", "commit", "abort"):
            rules += _attempt(entry, seen, cap)
        if kind == "witness":
            told, message = entry["evidence"], bytes.fromhex(entry["evidence"]["message"])
            _signed(told["key"], bytes.fromhex(told["signature"]), message, "a countersigned head")
            rules += [told["head"] in heads, told["head"].encode() in message]
        if not all(rules):
            raise ValueError(f"entry {entry['seq']}, a {kind}, cannot stand there")
        heads.add(entry["hash"])


def _attempt(entry: Entry, seen: dict[tuple[Any, ...], Entry], cap: Entry) -> list[bool]:
    kind, of = entry["kind"], (entry["job"], entry["round"], entry["attempt"])
    reserved, closed = seen.get(("reserve", *of)), ("commit", *of) in seen or ("abort", *of) in seen
    seen[kind, *of] = entry
    if kind != "reserve":
        return [reserved is not None and entry.get("steps", 0) <= reserved["steps"], not closed]
    spec = entry["spec"]
    rules = [spec[name] == cap.get(name) for name in ("unit", "relation")]
    rules += [reserved is None, entry["steps"] == spec["steps"] >= 1]
    rules += [(spec["sampler"] == "truncated-poisson") == (spec["batch_cap"] > 0)]
    return [*rules, 0 < spec["sampling_rate"] <= 1, spec["noise_multiplier"] > 0]


def check_anchor(entries: Sequence[Entry], in_force: Sequence[str], path: Path) -> None:
    """Raise unless the anchor's head is an entry of this ledger, signed by its key."""
    mark: Any = json.loads(path.read_bytes())
    seq, digest = mark["seq"], mark["hash"]
    if mark["format"] != ANCHOR or type(seq) is not int or seq < 0:
        raise ValueError("it is no ledger anchor")
    signer, signature = in_force[min(seq, len(entries))], bytes.fromhex(mark["signature"])
    _signed(signer, signature, digest.encode(), "the anchor's head")
    if seq >= len(entries) or entries[seq]["hash"] != digest:
        raise LedgerError(ROLLED_BACK, f"the anchor has seen entry {seq}, which is not here")


class Spending:
    """The epsilon of a schedule that grows row by row, by two accountants."""

    def __init__(self, relation: str, delta: float) -> None:
        """Nothing is spent yet."""
        self._relation, self._delta = relation, delta
        self._rows: list[tuple[Step, int]] = []
        self._counts: Counter[Step] = Counter()
        self._composed: dict[float, tuple[int, Any]] = {}

    def add(self, spec: Mapping[str, Any], steps: int) -> None:
        """Append ``steps`` noisy steps of a mechanism."""
        step = (*(spec[name] for name in PRICED),)
        self._rows.append((step, steps))
        self._counts[step] += steps

    def pld(self, interval: float, *, anew: bool = False) -> float:
        """Return epsilon by privacy loss distributions at this discretization."""
        if not 1e-7 < interval < 1:
            return math.inf
        begun, total = self._composed.get(interval, (0, None)) if not anew else (0, None)
        for step, count in sorted(self._counts.items()) if anew else self._rows[begun:]:
            part = _distribution(step, count, self._relation, interval)
            total = part if total is None else total.compose(part)
        self._composed[interval] = (len(self._rows), total)
        return 0.0 if total is None else float(total.get_epsilon_for_delta(self._delta))

    def renyi(self) -> float:
        """Return epsilon by Renyi divergences, valid for steps chosen after earlier outputs.

        Canonne, Kamath & Steinke 2020, Proposition 12. A step cut at its cap moves by up to 4 C:
        a mixture over whether it is cut, or the chance of any charged to delta.
        """
        counts = list(self._counts.items())
        found, cut = [math.inf, math.inf], sum(n * _cut(step) for step, n in counts)
        for either, delta in enumerate((self._delta, self._delta - cut)):
            for i, a in enumerate(ORDERS if delta > 0 else ()):
                total = sum(n * _curves(step, self._relation)[either][i] for step, n in counts)
                bound = total + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)
                small = delta**2 + math.expm1(-total) > 0  # bounded by the KL divergence alone
                found[either] = max(0.0, min(found[either], 0.0 if small else bound))
        return min(found)


@cache
def _distribution(step: Step, count: int, relation: str, interval: float) -> Any:
    from dp_accounting import privacy_accountant as accountants
    from dp_accounting.pld import privacy_loss_distribution as losses

    noise, rate, cap, size = step
    neighbours = accountants.NeighboringRelation[relation.upper().replace("-", "_")]
    options: Any = {"value_discretization_interval": interval, "neighboring_relation": neighbours}
    found = losses.from_gaussian_mechanism(noise, sampling_prob=rate, **options)
    if cap:
        truncated = losses.from_truncated_subsampled_gaussian_mechanism
        found = truncated(size, rate, cap, noise, **options)
    return found if count == 1 else found.self_compose(count)


@cache
def _curves(step: Step, relation: str) -> tuple[list[float], list[float]]:
    """Return the divergence of one step at ``ORDERS``, with the cap and as if it never cut.

    Replacing: by way of removing (Mironov 2017, Prop. 11, p = q = 2) or unsampled at distance 2.
    """
    noise, rate, cut = step[0], step[1], _cut(step)
    never = [_sampled(noise, rate, a) for a in ORDERS]
    if relation == "replace-one":
        there = [(a - 0.5) / (a - 1) * _sampled(noise, rate, 2 * a) for a in ORDERS]
        back = [_sampled(noise, rate, 2 * a - 1) for a in ORDERS]
        never = [min(t + b, a * 2 / noise**2) for t, b, a in zip(there, back, ORDERS, strict=True)]
    mixed = list[float]()
    for a, value in zip(ORDERS, never, strict=True):
        parts = ((1 - cut, (a - 1) * value), (cut, (a - 1) * a * 8 / noise**2))
        mixed.append(_log_sum(math.log(p) + x for p, x in parts if p > 0) / (a - 1))
    return mixed, never


def _sampled(noise: float, rate: float, order: int) -> float:
    """Return the sampled Gaussian's divergence (Mironov, Talwar & Zhang 2019, section 3.3)."""
    if rate == 1:
        return order / (2 * noise**2)
    terms = (_binomial(order, k, rate) + (k * k - k) / (2 * noise**2) for k in range(order + 1))
    return _log_sum(terms) / (order - 1)


def _log_sum(terms: Iterable[float]) -> float:
    top = max(found := list(terms))
    return top + math.log(math.fsum(math.exp(term - top) for term in found))


def _binomial(n: int, k: int, rate: float) -> float:
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + k * math.log(rate) + (n - k) * math.log1p(-rate)


@cache
def _cut(step: Step) -> float:
    """Return the chance that a step reaches its cap: P(X >= cap), summed away from the mean."""
    _, rate, cap, size = step
    if not cap or cap > size - 1 or rate == 1:
        return float(0 < cap <= size - 1)
    above = cap > (size - 1) * rate
    total, k, term = 0.0, cap if above else cap - 1, 1.0
    while 0 <= k < size and term > 1e-18 * total:
        term = math.exp(_binomial(size - 1, k, rate))
        total, k = total + term, k + (1 if above else -1)
    return total if above else 1 - total


def check_spending(entries: Sequence[Entry]) -> dict[str, float]:
    """Return the epsilon of all reserves by both accountants, each row's claim and cap checked."""
    cap, plans = entries[0]["budget"], set[tuple[str, str]]()
    spent, found, interval = Spending(cap["relation"], cap["delta"]), 0.0, 1e-3
    for entry in entries:
        cap = entry.get("budget") or cap
        if entry["kind"] != "reserve":
            continue
        claim = entry["claim"]["epsilon"]
        plans.add((entry["job"], entry["plan"]))
        spent.add(entry["spec"], entry["steps"])
        if len(plans) > 1:
            found = spent.renyi()
        else:
            interval = entry["claim"]["interval"]
            found = spent.pld(interval)
            if found > claim + TOLERANCE:  # refining may also have rounded up: hence the last
                anew = [spent.pld(at, anew=True) for at in (interval, 10 * interval)]
                found = min(found, spent.renyi(), *anew)
        told = f"entry {entry['seq']}: epsilon is {found:.6f}"
        if found > cap["epsilon"] + TOLERANCE:
            raise LedgerError(OVER_BUDGET, f"{told}, the budget {cap['epsilon']:g}")
        if found > claim + TOLERANCE:
            raise LedgerError(MISMATCH, f"{told}, the claim {claim:.6f}")
    figures = {"pld": spent.pld(interval), "renyi": spent.renyi()} if plans else {}
    return {"epsilon": found, "budget": cap["epsilon"], **figures}


def verify(
    path: Path, key: Ed25519PublicKey, *, anchor: Path | None = None, heads: Iterable[str] = ()
) -> dict[str, Any]:
    """Return what holds of a ledger or its export; raises ``LedgerError`` or ``OSError``."""
    try:
        entries = check_chain(read_rows(path))
        in_force = check_signatures(entries, key)
        check_story(entries)
        if anchor is not None:
            check_anchor(entries, in_force, anchor)
    except (*BROKEN, sqlite3.DatabaseError) as error:
        raise LedgerError(TAMPERED, f"{path.name}: {error}") from None
    for head in set(heads) - {entry["hash"] for entry in entries}:
        raise LedgerError(ROLLED_BACK, f"the head {head[:19]} was seen, but is not here")
    told = {"asset": entries[0]["asset"], "entries": len(entries), "head": entries[-1]["hash"]}
    return told | check_spending(entries)


def main(words: Sequence[str] | None = None) -> int:
    """Verify as the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description="Verify a privacy ledger.")
    parser.add_argument("file", type=Path)
    parser.add_argument("--key", required=True)
    parser.add_argument("--anchor", type=Path)
    parser.add_argument("--heads", type=Path)
    try:
        given = parser.parse_args(words)
        heads = read_heads(given.heads, given.file.stem) if given.heads else []
        told = verify(given.file, load_key(given.key), anchor=given.anchor, heads=heads)
    except SystemExit as stop:  # argparse's own 2 would mean tampered
        return USAGE if stop.code else 0
    except (LedgerError, OSError, *BROKEN) as error:
        own = isinstance(error, LedgerError)
        sys.stderr.write(f"Error: {error.args[1] if own else error}\n")
        return error.args[0] if own else MISSING if isinstance(error, OSError) else USAGE
    sys.stdout.write(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

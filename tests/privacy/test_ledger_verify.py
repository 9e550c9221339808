"""The auditor's script: alone, from one file, it recomputes what the ledger says."""

import ast
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collegium.core.mechanism import Budget, MechanismSpec
from collegium.core.signing import fingerprint, generate_key, save_private, save_public
from collegium.privacy import ledger_rows, ledger_store, ledger_verify, rdp
from collegium.privacy.accountant import bound_of, epsilon_of, filter_epsilon
from collegium.privacy.ledger import Ledger
from collegium.privacy.ledger_files import export_jsonl
from collegium.privacy.ledger_verify import BROKEN, LedgerError, Spending, main, verify

Make = Callable[..., MechanismSpec]
KEY = generate_key()
NAME = fingerprint(KEY.public_key())
BUDGET = Budget(epsilon=30.0, delta=1e-5, unit="record", relation="add-or-remove-one")
SCRIPT = Path(ledger_verify.__file__)


def filled(folder: Path, make_spec: Make, *, budget: Budget = BUDGET) -> Path:
    """A ledger of two mechanisms, then of a second job; with every kind of row."""
    path, anchor = folder / "north.sqlite", folder / "a" / "north.anchor"
    book = Ledger(path, "cardiology", budget, KEY, anchor=anchor)
    relation: Any = budget.relation
    for number in range(1, 5):
        names = {"job": "j", "round": number, "attempt": 1}
        spec = make_spec(noise_multiplier=2.0 + number % 2, relation=relation, steps=2)
        book.reserve(**names, base_sha256="b", spec=spec)
        book.commit(**names, update_sha256="u")
    spec = make_spec(sampler="truncated-poisson", batch_cap=22, relation=relation)
    book.reserve(job="j", round=5, attempt=1, base_sha256="b", spec=spec)
    book.abort(job="j", round=5, attempt=1)
    peer, message = generate_key(), book.head.encode()
    book.witness(head=book.head, key=peer.public_key(), message=message,
                 signature=peer.sign(message))  # fmt: skip
    book.release(model_sha256="m")
    book.reserve(job="k", round=1, attempt=1, base_sha256="b", spec=make_spec(relation=relation))
    book.close()
    lower = replace(budget, epsilon=20.0)
    Ledger(path, "cardiology", lower, KEY, anchor=anchor).close()
    return path


def code_of(*words: object, key: str = NAME) -> int:
    """The exit code of the script's own command line, in this process."""
    return main([*map(str, words), "--key", key])


def test_it_imports_nothing_of_ours() -> None:
    found: set[str] = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    outside = {name.partition(".")[0] for name in found} - set(sys.stdlib_module_names)
    assert outside == {"cryptography", "dp_accounting"}


def test_its_own_words_are_the_ledgers() -> None:
    assert ledger_rows.DOMAIN == ledger_verify.DOMAIN
    assert ledger_rows.ROTATE == ledger_verify.ROTATE
    assert ledger_rows.GENESIS_HEAD == ledger_verify.START
    assert ledger_store.VERSION == ledger_verify.VERSION
    assert rdp.ORDERS == ledger_verify.ORDERS
    for kind, names in ledger_rows.FIELDS.items():
        assert " ".join(names) == ledger_verify.FIELDS[kind]


@pytest.mark.slow
def test_alone_in_a_folder_from_one_exported_file(tmp_path: Path, make_spec: Make) -> None:
    path = filled(tmp_path, make_spec)
    alone = tmp_path / "auditor"
    alone.mkdir()
    shutil.copyfile(SCRIPT, alone / "check.py")
    (alone / "north.jsonl").write_bytes(export_jsonl(path))
    shutil.copyfile(tmp_path / "a" / "north.anchor", alone / "north.anchor")
    words = [sys.executable, "check.py", "north.jsonl", "--key", NAME, "--anchor", "north.anchor"]
    code = f"import runpy, sys; sys.argv = {words[1:]!r}\n" + (
        "try:\n    runpy.run_path('check.py', run_name='__main__')\n"
        "finally:\n    print(*(name for name in ('torch', 'collegium') if name in sys.modules),"
        " file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=alone, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")
    told = json.loads(done.stdout)
    assert told["asset"] == "cardiology" and told["entries"] == 15


@pytest.mark.parametrize("relation", ["add-or-remove-one", "replace-one", "replace-special"])
def test_it_agrees_with_the_ledger(tmp_path: Path, make_spec: Make, relation: Any) -> None:
    path = filled(tmp_path, make_spec, budget=replace(BUDGET, relation=relation))
    (tmp_path / "north.jsonl").write_bytes(export_jsonl(path))
    book = Ledger(path, "cardiology", replace(BUDGET, relation=relation, epsilon=20.0), KEY)
    book.close()
    for file in (path, tmp_path / "north.jsonl"):
        told = verify(file, KEY.public_key(), anchor=tmp_path / "a" / "north.anchor")
        assert told["epsilon"] == told["renyi"] == pytest.approx(book.enforced(), rel=1e-9)
        assert told["budget"] == 20.0 and told["head"] == book.head


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_both_accountants_agree_with_ours(make_spec: Make, seed: int) -> None:
    dice = random.Random(seed)
    relation: Any = ("add-or-remove-one", "replace-one", "replace-special")[seed % 3]
    delta = dice.choice([1e-9, 1e-5])
    spend: list[tuple[MechanismSpec, int]] = []
    for _ in range(dice.randrange(1, 4)):
        cap = dice.choice([0, 12, 45])
        spec = make_spec(
            noise_multiplier=dice.choice([0.8, 3.0]), sampling_rate=dice.choice([0.05, 0.3, 1.0]),
            batch_cap=cap, sampler="truncated-poisson" if cap else "poisson", relation=relation,
        )  # fmt: skip
        spend.append((spec, dice.randrange(1, 30)))
    spent = Spending(relation, delta)
    for spec, steps in spend:
        spent.add({name: getattr(spec, name) for name in ledger_verify.PRICED}, steps)
    assert spent.renyi() == pytest.approx(filter_epsilon(spend, delta), rel=1e-7, abs=1e-9)
    bound = bound_of(spend, delta)
    smallest = min(spent.pld(bound.interval), spent.pld(10 * bound.interval), spent.renyi())
    # never above the claim; below it by the tails of 1e-15 that each composition cuts, at most
    assert bound.epsilon * (1 - 1e-3) <= smallest <= bound.epsilon + 1e-6


def test_the_table_of_the_notes() -> None:
    """N=10,000, B=256, 780 steps, delta 1e-5 (notes/privacy.md, section 5)."""
    for noise, expected in ((1.0, 4.512), (2.0, 1.529)):
        spent = Spending("add-or-remove-one", 1e-5)
        for _ in range(10):
            spent.add({"noise_multiplier": noise, "sampling_rate": 0.0256, "batch_cap": 0,
                       "public_records": 10_000}, 78)  # fmt: skip
        assert spent.pld(1e-3) == pytest.approx(expected, abs=1e-3)
        assert spent.pld(1e-3, anew=True) == pytest.approx(expected, abs=1e-3)
        assert spent.renyi() > spent.pld(1e-3)


def test_heads_of_every_form(tmp_path: Path, make_spec: Make) -> None:
    path = filled(tmp_path, make_spec)
    head = ledger_verify.read_rows(path)[3][3]
    file = tmp_path / "heads.json"
    lost = "sha256:" + "9" * 64
    by_site = {"north": {"ledger_head": head}, "south": {"ledger_head": lost}}
    for known, expected in (
        ([head], 0), ([head, lost], 3), ({"north": head, "south": lost}, 0), ({"x": lost}, 3),
        ({"x": head}, 0), ({"privacy": {"epsilon_by_site": by_site}, "schema": 1}, 0),
        ({"privacy": {"epsilon_by_site": {"north": {"ledger_head": lost}}}}, 3),
        ({"x": head, "y": head}, 64), ({}, 64), ([], 64), ("x", 64), ([7], 64), (None, 64),
        ({"privacy": None}, 64),
    ):  # fmt: skip
        file.write_text(json.dumps(known))
        assert code_of(path, "--heads", file) == expected, known
    file.write_text("{")
    assert code_of(path, "--heads", file) == 64


def test_keys_usage_and_missing_files(
    tmp_path: Path, make_spec: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    path = filled(tmp_path, make_spec)
    save_public(KEY.public_key(), tmp_path / "key.pub")
    save_private(generate_key(), tmp_path / "key.pem")
    assert code_of(path, key=str(tmp_path / "key.pub")) == 0
    assert json.loads(capsys.readouterr().out)["entries"] == 15
    assert code_of(path, key=fingerprint(generate_key().public_key())) == 2
    for key in ("ed25519:x", str(tmp_path / "key.pem")):
        assert code_of(path, key=key) == 64
    assert code_of(path, key=str(tmp_path / "none")) == 66
    assert code_of(tmp_path / "none") == 66
    assert code_of(path, "--anchor", tmp_path / "none") == 66
    assert main([str(path)]) == main([]) == main([str(path), "--key", NAME, "--other"]) == 64
    assert main(["--help"]) == 0


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null\n{}", b"\xff\xfe", b"SQLite format 3\0rubbish", b'{"a":"\\ud800"}'],
)  # fmt: skip
def test_rubbish_is_tampered(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "l").write_bytes(raw)
    assert code_of(tmp_path / "l") == 2


@given(data=st.data())
@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_edit_of_an_export_passes_or_crashes(
    tmp_path_factory: pytest.TempPathFactory, exported: bytes, data: st.DataObject
) -> None:
    """Any byte of the rows changed, any line dropped or doubled: never 0, never a traceback."""
    lines = exported.splitlines()
    number = data.draw(st.integers(1, len(lines) - 1))
    line = lines[number]
    how = data.draw(st.sampled_from(["byte", "drop", "double", "cut"]))
    if how == "byte":
        at = data.draw(st.integers(0, len(line) - 1))
        value = data.draw(st.integers(32, 126).filter(lambda found: found != line[at]))
        lines[number] = line[:at] + bytes([value]) + line[at + 1 :]
        same = lines[number].lower() == line.lower()  # hexadecimal digits in capitals
    elif how == "cut":
        lines[number] = line[: data.draw(st.integers(0, len(line) - 1))]
        same = not lines[number] and number == len(lines) - 1  # as good as dropped
    else:
        lines[number : number + 1] = [] if how == "drop" else [line, line]
        same = how == "drop" and number == len(lines)  # the newest: that is what heads are for
    path = tmp_path_factory.mktemp("edited") / "l.jsonl"
    path.write_bytes(b"\n".join(lines))
    if not same:
        with pytest.raises(LedgerError) as caught:
            verify(path, KEY.public_key())
        assert caught.value.args[0] == 2


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A small ledger's export."""
    path = tmp_path_factory.mktemp("export") / "l.sqlite"
    book = Ledger(path, "cardiology", BUDGET, KEY)
    for number in range(3):
        book.release(model_sha256=f"m{number}")
    book.close()
    return export_jsonl(path)


def test_a_claim_that_is_too_small_or_unheard_of(make_spec: Make) -> None:
    spec = make_spec()
    true = epsilon_of([(spec, 1)], 1e-5)
    budget = {"epsilon": 3.0, "delta": 1e-5, "unit": "record", "relation": "add-or-remove-one"}
    plain: dict[str, Any] = {name: getattr(spec, name) for name in ledger_verify.PRICED}

    def checked(epsilon: float, interval: float) -> float:
        reserve = {"kind": "reserve", "seq": 1, "job": "j", "plan": "", "spec": plain, "steps": 1,
                   "claim": {"epsilon": epsilon, "interval": interval}}  # fmt: skip
        genesis = {"kind": "genesis", "seq": 0, "budget": budget}
        return ledger_verify.check_spending([genesis, reserve])["epsilon"]

    interval = bound_of([(spec, 1)], 1e-5).interval
    assert checked(true, interval) == pytest.approx(true, abs=1e-6)
    assert checked(true - 0.9e-6, interval) == pytest.approx(true, abs=1e-6)
    with pytest.raises(LedgerError, match="the claim"):
        checked(true - 1e-4, interval)
    with pytest.raises(LedgerError):  # no discretization at all: only the Renyi bound is left
        checked(true, 1e-30)
    assert isinstance(BROKEN, tuple)

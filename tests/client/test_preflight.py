"""Preflight: every fault is named with its cure, nothing is spent, records are looked at last."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.client.preflight import Finding, preflight

Make = Callable[..., Any]


def found(town: Any, **options: Any) -> dict[str, list[Finding]]:
    """All findings by check."""
    by_check: dict[str, list[Finding]] = {}
    for finding in preflight(town.file, **options):
        by_check.setdefault(finding.check, []).append(finding)
    return by_check


def states(findings: list[Finding]) -> set[str]:
    return {finding.state for finding in findings}


def test_a_good_site_has_no_problem_and_spends_nothing(make_town: Make) -> None:
    town = make_town()
    checks = found(town)
    problems = [f for findings in checks.values() for f in findings if f.state == "problem"]
    assert problems == []
    assert states(checks["coordinator"]) == {"unknown"}  # nobody listens in this test
    assert "epsilon 3.0" in checks["epsilon"][0].text
    assert "3 steps" in checks["training"][0].text
    assert "spends at most all of max_epsilon 3, repeated" in checks["at most"][0].text
    town.write_site_file(max_epsilon=50.0)
    assert "spends at most epsilon 3." in found(town)["at most"][0].text
    assert not (town.home / "ledger" / "ward.sqlite").exists()
    assert not (town.home / "state" / "evidence.jsonl").exists()
    assert not (town.home / "state" / "spool").exists()


def test_after_rounds_the_ledger_tells_what_is_left(make_town: Make) -> None:
    town = make_town()
    town.approve()
    site = town.open()
    site.train(town.ask(site))
    site.ledger.close()
    before = (town.home / "ledger" / "ward.sqlite").read_bytes()
    checks = found(town)
    assert "3 entries" in checks["ledger"][0].text
    assert states(checks["anchor"]) == {"ok"}
    assert states(checks["budget"]) == {"warning"}  # a second job of this plan is too much
    assert (town.home / "ledger" / "ward.sqlite").read_bytes() == before


def _open_key(town: Any) -> None:
    (town.home / "keys" / "signing.pem").chmod(0o640)


def _lost_kit(town: Any) -> None:
    (town.home / "kit" / "roster.dsse").unlink()


def _other_ca(town: Any) -> None:
    (town.home / "kit" / "ca.crt").write_bytes(b"another")


def _too_many(town: Any) -> None:
    town.write_records(count=41)


def _no_records(town: Any) -> None:
    (town.home / "x.npz").unlink()


def _bad_labels(town: Any) -> None:
    np.savez(town.home / "x.npz", x=np.zeros((4, 3)), y=np.array([0, 1, 2, 0]))


def _all_alike(town: Any) -> None:
    """Records of one content are all in one part; with this asset's name, in the test part."""
    np.savez(town.home / "x.npz", x=np.full((9, 3), 0.5), y=np.zeros(9, dtype=np.int64))
    town.write_site_file()
    text = (town.home / "site.toml").read_text()
    (town.home / "site.toml").write_text(text.replace("[data]", "[data]\ntest_share = 0.999999"))


def _tampered(town: Any) -> None:
    town.approve()
    town.open().ledger.close()
    import sqlite3

    database = sqlite3.connect(town.home / "ledger" / "ward.sqlite")
    database.execute("DROP TRIGGER entries_no_update")
    database.execute("UPDATE entries SET body = replace(body, '3.0', '9.0')")
    database.commit()
    database.close()


def _lost_anchor(town: Any) -> None:
    town.approve()
    site = town.open()
    site.train(town.ask(site))
    site.ledger.close()
    (town.home / "elsewhere" / "ward.anchor").unlink()


def _spent(town: Any) -> None:
    town.write_site_file(max_epsilon=1.0)


FAULTS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "a key that others can read": ("keys", _open_key),
    "a kit that is not whole": ("kit", _lost_kit),
    "another CA": ("kit", _other_ca),
    "more records than declared": ("records", _too_many),
    "no records": ("records", _no_records),
    "labels of another plan": ("records", _bad_labels),
    "nothing to train on": ("records", _all_alike),
    "a changed ledger": ("ledger", _tampered),
    "a lost anchor": ("ledger", _lost_anchor),
    "a budget too small": ("budget", _spent),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_a_problem_with_a_cure(make_town: Make, fault: str) -> None:
    check, act = FAULTS[fault]
    town = make_town()
    act(town)
    bad = [finding for finding in found(town)[check] if finding.state == "problem"]
    assert bad and all(finding.cure for finding in bad)


def test_every_rule_of_the_policy_is_shown_not_the_first_alone(make_town: Make) -> None:
    town = make_town()
    town.write_site_file(max_steps=1, max_clip_norm=0.1, min_sites=9)
    checks = found(town)
    assert [finding.text.partition(":")[0] for finding in checks["policy"]] == [
        "policy-sites", "policy-steps", "policy-clip",
    ]  # fmt: skip
    assert states(checks["records"]) == {"unknown"}  # not looked at


def test_a_long_socket_path_is_named(make_town: Make) -> None:
    town = make_town(folder="x" * 90)
    assert states(found(town)["socket paths"]) == {"problem"}


def test_drift_is_shown_here(make_town: Make) -> None:
    town = make_town()
    x = np.random.default_rng(0).uniform(-1, 1, (40, 3))
    x[:, 1] += 7.0
    np.savez(town.home / "x.npz", x=x, y=np.zeros(40, dtype=np.int64))
    text = " ".join(finding.text for finding in found(town)["drift"])
    assert "class well" in text and "dose (100%)" in text


def test_the_network_part_sees_neither_policy_nor_records(make_town: Make) -> None:
    town = make_town()
    (town.home / "x.npz").unlink()
    (town.home / "keys" / "signing.pem").unlink()
    checks = found(town, part="network")
    assert not {"records", "ledger", "training", "policy"} & set(checks)
    assert all("problem" not in states(findings) for findings in checks.values())


def test_the_records_part_makes_no_connection(make_town: Make) -> None:
    assert "coordinator" not in found(make_town(), part="records")


def test_no_torch_before_the_records(make_town: Make) -> None:
    town = make_town()
    code = (
        "import sys; from pathlib import Path\n"
        "from collegium.client.preflight import preflight\n"
        "from collegium.core.site_file import SiteFile\n"
        f"for finding in preflight(SiteFile.load(Path({str(town.home / 'site.toml')!r}))):\n"
        "    if finding.check == 'asset': break\n"
        "assert not {'torch', 'flwr'} & set(sys.modules), 'imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user's files")
def test_another_users_key_is_named(make_town: Make, tmp_path: Path) -> None:
    """As root every file opens, so this asks as nobody."""
    town = make_town()
    code = (
        "import os, sys; from pathlib import Path\n"
        "from collegium.client.preflight_host import _keys\n"
        "from collegium.core.site_file import SiteFile\n"
        f"file = SiteFile.load(Path({str(town.home / 'site.toml')!r}))\n"
        "os.setuid(65534)\n"
        "print(*[finding.state for finding in _keys(file, 'both')])\n"
    )
    for folder in [town.home, *town.home.parents][: len(town.home.parts) - 2]:
        folder.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["problem", "problem"], done.stderr

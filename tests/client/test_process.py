"""A real site from its own files: what it refuses before a record is read, and how it opens."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.client import words
from collegium.client.process import device_of, open_site
from collegium.core.errors import (
    CollegiumError,
    InvalidInput,
    MissingInput,
    NotAvailable,
    Refused,
)
from collegium.core.messages import Update

Make = Callable[..., Any]


@pytest.fixture
def never_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which record files were read; patched where the readers are called."""
    seen: list[str] = []

    def read(file: Any, plan: Any) -> Any:
        seen.append(str(file.data_path))
        raise AssertionError("records were read")

    monkeypatch.setattr(words, "read_site_data", read)
    return seen


def test_an_approved_site_trains(make_town: Make) -> None:
    town = make_town()
    town.approve()
    site = town.open()
    try:
        assert not site.reproducible_noise
        update = Update.open(site.train(town.ask(site)), site.public_key)
        assert update.round == 1 and update.metrics == {}
        kinds = [entry.kind for entry in site.ledger.entries()]
        assert kinds == ["genesis", "reserve", "commit"]
        assert (town.home / "elsewhere" / "ward.anchor").is_file()
        assert (town.home / "state" / "records.sqlite").is_file()
        assert len(list((town.home / "state" / "spool").iterdir())) == 1
        assert (town.home / "state" / "evidence.jsonl").is_file()
    finally:
        site.ledger.close()


def test_a_lab_site_is_seeded_and_needs_no_approval(make_town: Make) -> None:
    town = make_town(lab=True)
    site = town.open()
    try:
        assert site.reproducible_noise
        Update.open(site.train(town.ask(site)), site.public_key)
    finally:
        site.ledger.close()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"max_steps": 2}, "policy-steps"),
        ({"max_sampling_rate": 0.4}, "policy-rate"),
        ({"max_clip_norm": 0.5}, "policy-clip"),
        ({"min_sites": 3}, "policy-sites"),
        ({"delta": 1e-4}, "policy-delta"),
        ({"models": ["collegium:glyph-cnn"]}, "policy-model"),
    ],
)
def test_a_plan_outside_the_policy_is_refused_and_no_record_is_read(
    make_town: Make, never_read: list[str], change: dict[str, Any], code: str
) -> None:
    town = make_town()
    town.write_site_file(**change)
    with pytest.raises(Refused, match=code):
        town.open()
    assert never_read == [] and not (town.home / "ledger").exists()


def test_a_model_that_is_not_allowed_is_not_built(
    make_town: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Any] = []
    monkeypatch.setattr("collegium.client.process.registry.build", built.append)
    town = make_town()
    town.write_site_file(models=["collegium:glyph-cnn"], max_steps=1)
    with pytest.raises(Refused, match="policy-model"):
        town.open()
    assert built == []


def test_every_broken_rule_is_named_at_once(make_town: Make) -> None:
    town = make_town()
    town.write_site_file(max_steps=1, max_clip_norm=0.1, min_sites=9)
    with pytest.raises(Refused) as caught:
        town.open()
    for code in ("policy-steps", "policy-clip", "policy-sites"):
        assert code in caught.value.message()


def test_without_an_approval_no_record_is_read(make_town: Make, never_read: list[str]) -> None:
    town = make_town()
    with pytest.raises(Refused, match="has not approved"):
        town.open()
    assert never_read == []


def test_seeded_noise_under_a_real_roster_is_refused(
    make_town: Make, never_read: list[str]
) -> None:
    """Even where a kit came past its own check: the site asks the roster again."""
    town = make_town()
    kit = town.kit()
    file = town.file
    simulated = replace(file, site=replace(file.site, mode="simulation"))
    with pytest.raises(Refused, match="seeded noise"):
        open_site(simulated, kit)
    lab = make_town(lab=True, folder="lab")
    real = replace(lab.file, site=replace(lab.file.site, mode="real"))
    with pytest.raises(Refused, match="seeded noise"):
        open_site(real, lab.kit())
    assert never_read == []


KIT_FAULTS: dict[str, Callable[[Path], None]] = {
    "a missing plan": lambda home: (home / "kit" / "plan.dsse").unlink(),
    "an unsigned plan": lambda home: shutil.copy(
        home / "kit" / "roster.dsse", home / "kit" / "plan.dsse"
    ) and None,
    "another CA": lambda home: (home / "kit" / "ca.crt").write_bytes(b"another") and None,
    "an open key": lambda home: (home / "keys" / "signing.pem").chmod(0o644),
}  # fmt: skip


@pytest.mark.parametrize("fault", KIT_FAULTS)
def test_a_faulty_kit_is_refused_and_no_record_is_read(
    make_town: Make, never_read: list[str], fault: str
) -> None:
    town = make_town()
    KIT_FAULTS[fault](town.home)
    with pytest.raises(CollegiumError) as caught:
        town.open()
    assert caught.value.exit_code in (66, 77)
    assert never_read == []


def test_records_of_another_shape_are_named(make_town: Make) -> None:
    town = make_town(lab=True)
    x = np.zeros((9, 4), dtype=np.float32)
    np.savez(town.home / "x.npz", x=x, y=np.zeros(9, dtype=np.int64))
    with pytest.raises(InvalidInput, match="a record has 4 values, the plan's features are 3"):
        town.open()


def test_records_that_are_not_there_are_66(make_town: Make) -> None:
    town = make_town(lab=True)
    (town.home / "x.npz").unlink()
    with pytest.raises(MissingInput):
        town.open()


def test_the_same_site_twice_is_refused(make_town: Make) -> None:
    town = make_town(lab=True)
    site = town.open()
    try:
        with pytest.raises(Refused):
            town.open()
    finally:
        site.ledger.close()


def test_a_device_that_is_not_here_is_69() -> None:
    assert device_of("cpu") == "cpu"
    assert device_of("auto") in ("cpu", "cuda")
    with pytest.raises(NotAvailable):
        device_of("cuda:99")

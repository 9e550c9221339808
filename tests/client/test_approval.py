"""The site's written word: needed to start, void when anything changed, taken back at will."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from collegium.client import approval
from collegium.core.errors import Refused
from collegium.core.signing import generate_key
from collegium.data.identity import array_ids
from collegium.data.site_data import SiteData

Make = Callable[..., Any]

CHANGES: dict[str, tuple[str, Callable[[Any], None]]] = {
    "the site's own words": ("site.toml", lambda town: town.write_site_file(max_steps=4)),
    "one value of one record": ("the records", lambda town: town.write_records(change=0.25)),
    "one record less": ("the records", lambda town: town.write_records(count=23)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_needs_a_new_approval(make_town: Make, change: str) -> None:
    what, act = CHANGES[change]
    town = make_town()
    town.approve()
    act(town)
    with pytest.raises(Refused, match=what) as caught:
        town.open()
    assert caught.value.exit_code == 77
    if what != "the records":  # other records of one asset have to be attached to its ledger, too
        town.approve()
        town.open().ledger.close()


@pytest.mark.parametrize("field", ["plan_sha256", "roster_sha256", "version", "site"])
def test_every_digest_in_it_counts(make_town: Make, field: str) -> None:
    town = make_town()
    town.approve()
    file, kit = town.file, town.kit()
    from collegium.core.signing import load_private

    key = load_private(file.keys_path / "signing.pem")
    held = approval.read_approval(file, key.public_key())
    approval.write_approval(file, replace(held, **{field: "another"}), key)
    with pytest.raises(Refused, match="Changed since"):
        approval.require_agreed(file, kit, key.public_key())


def test_another_key_approves_nothing(make_town: Make) -> None:
    town = make_town()
    town.approve()
    file = town.file
    held = approval.read_approval(file, _key(file).public_key())
    approval.write_approval(file, held, generate_key())
    with pytest.raises(Refused):
        town.open()
    (file.state_path / approval.FILE).write_bytes(b"{}")
    with pytest.raises(Refused):
        town.open()


@pytest.mark.parametrize("part", ["train", "test", "calibration"])
def test_every_part_is_approved(make_town: Make, part: str) -> None:
    """Calibration records and labels count as all others do."""
    import numpy as np

    town = make_town()
    x = np.random.default_rng(1).normal(size=(9, 3))
    parts = {"train": slice(0, 3), "test": slice(3, 6), "calibration": slice(6, 9)}

    def data(y: Any, shift: int = 0) -> SiteData:
        arrays = {f"{name}_x": x[rows] for name, rows in parts.items()}
        arrays |= {f"{name}_y": y[rows] for name, rows in parts.items()}
        ids = {f"{name}_ids": array_ids(x[rows], x[rows]) + shift for name, rows in parts.items()}
        return SiteData(asset="ward", **arrays, **ids)

    y = np.zeros(9)
    now = approval.records_fingerprint(town.file, data(y))
    assert approval.records_fingerprint(town.file, data(y)) == now
    assert approval.records_fingerprint(town.file, data(y, shift=1)) != now
    y[parts[part].start] = 1
    assert approval.records_fingerprint(town.file, data(y)) != now


def test_withdrawn_is_not_approved(make_town: Make) -> None:
    town = make_town()
    assert not approval.withdraw(town.file)
    town.approve()
    assert approval.withdraw(town.file)
    with pytest.raises(Refused, match="has not approved"):
        town.open()


def test_it_holds_no_count_and_is_the_sites_alone(make_town: Make) -> None:
    town = make_town()
    town.approve()
    path = town.file.state_path / approval.FILE
    assert path.stat().st_mode & 0o777 == 0o600
    held = approval.read_approval(town.file, _key(town.file).public_key())
    assert {name for name in held.__slots__ if isinstance(getattr(held, name), int)} == set()


def test_the_order_of_the_rows_is_not_a_change(make_town: Make) -> None:
    import numpy as np

    town = make_town()
    town.approve()
    with np.load(town.home / "x.npz") as held:
        parts = {name: held[name][::-1] for name in held.files}
    np.savez(town.home / "x.npz", **parts)
    town.open().ledger.close()


def _key(file: Any) -> Any:
    from collegium.core.signing import load_private

    return load_private(file.keys_path / "signing.pem")

"""One wrong date, or one leaked key, ends with the next honest index."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from collegium.core.signing import fingerprint, generate_key
from collegium.edge.device import DeviceError
from collegium.edge.device.index import digest_of, folder_name
from collegium.edge.device.pull import Pulling
from collegium.edge.publication import refresh, withdraw

DAY = timedelta(days=1)
YEARS = 3650 * DAY


def refusal(home: Any, **options: Any) -> tuple[str, int]:
    with pytest.raises(DeviceError) as caught:
        home.pull(Pulling(**options))
    return caught.value.code, caught.value.exit_code


def offered(field_: Any, rewrite: Any, bundle: Any, **values: Any) -> Any:
    """Publish a bundle by an index that is signed without a look at it."""
    import base64
    import shutil

    payload = base64.b64decode(json.loads((bundle / "bundle.sig").read_bytes())["payload"])
    version, digest = json.loads(payload)["predicate"]["version"], digest_of(payload)
    folder = folder_name(version, digest)
    shutil.copytree(bundle, field_.publication / folder)
    entry = {"version": version, "digest": digest, "folder": folder, "bytes": 1}
    rewrite(field_.publication / "index.sig", [field_.key], bundles=[entry], **values)
    return SimpleNamespace(version=version, digest=digest)


def test_a_bundle_dated_years_ahead_is_refused_and_blocks_nothing(
    field_: Any, rewrite: Any
) -> None:
    field_.publish(1)
    home = field_.home()
    home.pull()
    index = field_.publication / "index.sig"
    kept = index.read_bytes()
    ahead = field_.bundle(2, created=datetime.now(UTC) + YEARS)
    gone = offered(field_, rewrite, ahead, sequence=2)
    assert refusal(home) == ("BAD STATEMENT", 77)
    assert field_.runs(home) == 1
    index.write_bytes(kept)
    taken_back = [{"version": 2, "digest": gone.digest, "reason": "a wrong date"}]
    rewrite(index, [field_.key], sequence=3, withdrawn=taken_back)
    assert home.pull().outcome == "current"
    field_.publish(3)
    assert home.pull().before == 1 and field_.runs(home) == 3
    home.rollback()
    assert field_.runs(home) == 1


def test_a_bundle_alone_that_is_dated_ahead_does_not_make_the_home_late(field_: Any) -> None:
    bundle = field_.bundle(1, created=datetime.now(UTC) + YEARS)
    home = field_.home(bundle)
    home.pull()
    assert datetime.fromisoformat(field_.state.latest_time) < datetime.now(UTC) + 2 * DAY


def test_an_index_dated_years_ahead_is_put_right_by_the_next(field_: Any, rewrite: Any) -> None:
    field_.publish(1)
    home = field_.home()
    home.pull()
    ahead = datetime.now(UTC) + YEARS
    dates = {"created": ahead.isoformat(), "expires": (ahead + 90 * DAY).isoformat()}
    rewrite(field_.publication / "index.sig", [field_.key], sequence=2, **dates)
    assert refusal(home) == ("EXPIRED", 77)  # by that date, what runs here is too old
    refresh(field_.publication, [field_.key])
    assert home.pull().outcome == "current" and home.health()["ok"]


def test_a_device_without_a_clock_takes_its_time_from_the_newest_index(field_: Any) -> None:
    never, made = datetime(1970, 1, 1, tzinfo=UTC), datetime.now(UTC)
    field_.publish(1, created=made - 5 * DAY, valid_days=10)
    home = field_.home()
    home.pull(Pulling(clock=never))
    assert home.load(clock=never).selftest_agreement == 1.0
    old = (field_.publication / "index.sig").read_bytes()
    refresh(field_.publication, [field_.key], now=made + 6 * DAY)
    assert refusal(home, clock=never) == ("EXPIRED", 77)
    with pytest.raises(DeviceError, match="EXPIRED"):
        home.load(clock=never)
    (field_.publication / "index.sig").write_bytes(old)
    assert refusal(home, clock=never) == ("ROLLBACK", 77)


def test_a_leaked_key_that_jumped_time_and_sequence_is_revoked(field_: Any, rewrite: Any) -> None:
    leaked, index = generate_key(), field_.publication / "index.sig"
    names = [fingerprint(key.public_key()) for key in (field_.key, leaked)]
    field_.publish(1)
    home = field_.home(keys=tuple(names))
    home.pull()
    kept = index.read_bytes()
    ahead = datetime.now(UTC) + YEARS
    dates = {"created": ahead.isoformat(), "expires": (ahead + 90 * DAY).isoformat()}
    rewrite(index, [leaked], sequence=(1 << 63) - 1, **dates)
    assert refusal(home) == ("EXPIRED", 77)
    index.write_bytes(kept)
    field_.store.save(replace(field_.state, latest_time=ahead.isoformat()))
    field_.publish(2)
    assert refusal(home)[1] == 77
    settings = field_.path / "device.toml"
    settings.write_text(settings.read_text().replace("revoked = []", f'revoked = ["{names[1]}"]'))
    done = home.pull()
    assert (done.before, field_.runs(home)) == (1, 2)
    assert (done.state.index_sequence, done.state.floor) == (2, 2)
    assert done.state.revoked == (names[1],)
    newest = index.read_bytes()
    index.write_bytes(kept)
    assert refusal(home) == ("ROLLBACK", 77)  # it begins anew once, not at each pull
    index.write_bytes(newest)
    withdraw(field_.publication, 2, "wrong", [field_.key])
    assert home.pull().outcome == "went back"

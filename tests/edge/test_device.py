"""A real bundle on a device: what the stage made is what a device takes, and nothing else."""

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.core.digest import canonical_bytes
from collegium.core.signing import generate_key, make_envelope, save_public
from collegium.edge import device
from collegium.edge.apart import run_device
from collegium.edge.device import DeviceError, Verified, load_key, verify_bundle


def check(made: Any, bundle: Path, **options: Any) -> Verified:
    return verify_bundle(bundle, [load_key(made.pem)], **({"allow_simulated": True} | options))


def refused(made: Any, bundle: Path, **options: Any) -> str:
    """Return the code with which the device refuses."""
    with pytest.raises(DeviceError) as caught:
        check(made, bundle, **options)
    return caught.value.code


def resign(made: Any, bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the statement and sign it again with the trusted key."""
    path = bundle / "bundle.sig"
    statement = json.loads(base64.b64decode(json.loads(path.read_bytes())["payload"]))
    change(statement)
    path.write_bytes(make_envelope(canonical_bytes(statement), [made.key]))


def test_the_real_bundle_verifies_and_predicts(made: Any) -> None:
    verified = check(made, made.folder)
    names = {path.name for path in made.folder.iterdir()}
    assert names == {*verified.subjects, "bundle.sig"}
    labels, chances = device.predict(verified, made.test.x)
    assert np.mean([int(label) for label in labels] == made.test.y) == made.result.accuracy
    np.testing.assert_allclose(chances.sum(axis=1), 1, rtol=1e-5)
    single, _ = verified.predict(made.test.x[0])
    assert single == labels[:1]


def test_one_flipped_byte_or_a_missing_file_is_refused(made: Any, bundle: Path) -> None:
    for path in sorted(bundle.iterdir()):
        signature = path.name == "bundle.sig"
        whole = path.read_bytes()
        spoilt = bytearray(whole)
        spoilt[len(spoilt) // 2] ^= 1
        path.write_bytes(spoilt)
        assert refused(made, bundle) == ("BAD SIGNATURE" if signature else "HASH"), path.name
        path.unlink()
        assert refused(made, bundle) == ("BAD SIGNATURE" if signature else "FILE SET"), path.name
        path.write_bytes(whole)
    assert check(made, bundle)


def test_expired_simulated_and_strangers(made: Any, bundle: Path) -> None:
    assert refused(made, bundle, now=datetime.now(UTC) + timedelta(days=4000)) == "EXPIRED"
    assert refused(made, bundle, allow_simulated=False) == "SIMULATED"
    with pytest.raises(DeviceError, match="BAD SIGNATURE"):
        verify_bundle(made.folder, [generate_key().public_key()], allow_simulated=True)
    resign(made, bundle, lambda s: s["predicate"].update(simulated=False))
    check(made, bundle, allow_simulated=False)


def test_a_fresh_process_without_torch_or_collegium(made: Any, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", made.test.x[:5])
    words = [str(made.folder), str(tmp_path / "x.npy"), "--key", str(made.pem), "--json"]
    done = run_device(["predict", *words, "--allow-simulated"])
    assert (done.returncode, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    assert answer["labels"] == check(made, made.folder).predict(made.test.x[:5])[0]
    assert answer["note"] == "simulated: no privacy guarantee"
    stranger = tmp_path / "stranger.pub"
    save_public(generate_key().public_key(), stranger)
    done = run_device(["verify", str(made.folder), "--key", str(stranger), "--json"])
    assert done.returncode == 77 and json.loads(done.stdout)["code"] == "BAD SIGNATURE"


def test_importing_the_package_imports_no_torch() -> None:
    program = (
        "import collegium.edge.device, sys\n"
        "sys.exit(bool({'torch', 'ssl', 'zipfile', 'PIL', 'onnx'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

"""Well signed and still wrong: paths in names, other statements, bundles that do not run."""

import base64
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from collegium.core.digest import sha256_hex
from collegium.edge import publication
from collegium.edge.bundle import npz_bytes
from collegium.edge.device import DeviceError
from collegium.edge.device.pull import Pulling
from collegium.edge.publication import add


def refusal(home: Any, **options: Any) -> tuple[str, int]:
    """Return code and exit code with which a pull ends."""
    with pytest.raises(DeviceError) as caught:
        home.pull(Pulling(**options))
    return caught.value.code, caught.value.exit_code


@pytest.mark.parametrize("folder", ["../bundle-1", "..", "/etc", ".hidden", "a/b", "NUL", ""])
def test_a_folder_with_a_path_in_it_is_refused(field_: Any, rewrite: Any, folder: str) -> None:
    field_.publish(1)
    entry = {"version": 1, "digest": "sha256:" + "0" * 64, "folder": folder, "bytes": 1}
    rewrite(field_.publication / "index.sig", [field_.key], bundles=[entry])
    home = field_.home()
    assert refusal(home) == ("FILE SET", 77)
    assert not field_.store.incoming.exists()


@pytest.mark.parametrize(
    "values",
    [{"sequence": True}, {"sequence": -1}, {"sequence": 1.5}, {"bundles": [{}]}, {"name": 3},
     {"expires": "soon"}, {"expires": "2030-01-01"}, {"withdrawn": None}, {"bundles": "x"},
     {"bundles": [{"version": 1, "digest": "sha256:0", "folder": "a", "bytes": 1}]}],
)  # fmt: skip
def test_a_signed_index_that_is_none_is_refused(
    field_: Any, rewrite: Any, values: dict[str, Any]
) -> None:
    field_.publish(1)
    rewrite(field_.publication / "index.sig", [field_.key], **values)
    assert refusal(field_.home()) == ("BAD INDEX", 77)


def test_a_bundle_is_no_index_and_an_index_no_bundle(field_: Any) -> None:
    folder = field_.publish(1)
    home, index = field_.home(), field_.publication / "index.sig"
    kept = index.read_bytes()
    index.write_bytes((folder / "bundle.sig").read_bytes())
    assert refusal(home) == ("BAD INDEX", 77)
    index.write_bytes(kept)
    (folder / "bundle.sig").write_bytes(kept)
    assert refusal(home) == ("BAD STATEMENT", 77)


def test_another_signed_bundle_under_the_offered_name_is_refused(field_: Any) -> None:
    folder = field_.publish(2)
    home = field_.home()
    shutil.rmtree(folder)
    shutil.copytree(field_.bundle(1), folder)
    assert refusal(home) == ("HASH", 77)
    assert field_.state.current is None


def test_a_failing_self_test_is_refused_and_the_current_stays(field_: Any) -> None:
    field_.publish(1)
    home = field_.home()
    home.pull()
    old = npz_bytes(x=np.eye(2, dtype=np.float32), logits=np.eye(2), labels=np.array([1, 0]))
    for version, files, code in (
        (2, {"model.onnx": b"no graph"}, "MODEL"),
        (3, {"selftest.npz": old}, "SELFTEST"),
    ):
        with pytest.MonkeyPatch.context() as patch:  # a publisher who does not look
            patch.setattr(publication, "_verified", _unchecked)
            add(field_.publication, field_.bundle(version, files=files), [field_.key])
        assert refusal(home) == (code, 77)
        assert field_.runs(home) == 1 and field_.state.last_pull["code"] == code


def _unchecked(bundle: Path, *_: Any) -> Any:
    payload = base64.b64decode(json.loads((bundle / "bundle.sig").read_bytes())["payload"])
    statement = json.loads(payload)
    return SimpleNamespace(
        predicate=statement["predicate"],
        digest=sha256_hex(payload),
        subjects={entry["name"]: "" for entry in statement["subject"]},
    )

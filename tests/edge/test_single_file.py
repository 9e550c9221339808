"""The joined script: readable, one meaning per name, and the same program as the package."""

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.edge import device
from collegium.edge.apart import run_device
from collegium.edge.single_file import device_script

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("numpy", "onnxruntime", "cryptography", "cffi", "_cffi_backend", "flatbuffers",
          "google", "packaging", "pycparser")  # fmt: skip


def test_it_is_the_same_text_each_time_and_holds_no_path() -> None:
    text = device_script()
    assert text == device_script()
    assert str(ROOT) not in text and "collegium.edge" not in text.replace("collegium.edge.d", "")


def test_it_reads_as_ruff_would_write_it(tmp_path: Path) -> None:
    (tmp_path / "device.py").write_text(device_script(), encoding="utf-8")
    settings = ["--config", str(ROOT / "pyproject.toml")]
    for words in (["format", "--check"], ["check", "--ignore", "T201"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, *settings, "--no-cache", "device.py"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_definition_of_the_package_is_in_it_once() -> None:
    joined = ast.parse(device_script())
    found = [node.name for node in joined.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    ours = [
        node.name
        for path in Path(device.__file__).parent.glob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
    ]
    assert sorted(found) == sorted(ours) and len(set(found)) == len(found)
    assert {"main", "verify_bundle", "predict"} <= set(found)


def folder_of(tmp_path: Path, **modules: str) -> Path:
    for name, text in modules.items():
        (tmp_path / f"{name}.py").write_text(f'"""Of {name}."""\n\n{text}\n', encoding="utf-8")
    return tmp_path


def test_modules_come_after_those_that_they_import(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path,
        a="import re\nfrom .z import base\n\n# said of first\nfirst = base + 1",
        z='base = 1\n"""Of base."""',
        m="from .a import first\n\n\ndef main() -> int:\n    return first",
        __init__="from .a import first",
    )
    text = device_script(folder)
    assert text.index("# --- z") < text.index("# --- a") < text.index("# --- m")
    assert "# said of first\nfirst" in text and '"""Of base."""' in text
    assert text.count("import re\n") == 1 and "from ." not in text
    found: dict[str, Any] = {"__name__": "device"}
    exec(text, found)
    assert found["main"]() == 2


@pytest.mark.parametrize(
    "modules",
    [
        {"a": "same = 1", "b": "same = 2"},
        {"a": "def same() -> None: ...", "b": "class same: ..."},
        {"a": "import json as same", "b": "same = 2"},
        {"a": "from re import match", "b": "from fnmatch import fnmatch as match"},
        {"a": "one, two = 1, 2", "b": "two: int = 2"},
        {"a": "def f() -> None:\n    from .b import x", "b": "x = 1"},
        {"a": "from . import b", "b": "x = 1"},
        {"a": "from .b import x as y", "b": "x = 1"},
        {"a": "x = 1\nimport re"},
        {"a": "if 1:\n    x = 1"},
    ],
)
def test_what_cannot_stand_in_one_file(tmp_path: Path, modules: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"a\.py|same|match|two"):
        device_script(folder_of(tmp_path, **modules))


def write_digits(made: Any, folder: Path) -> list[str]:
    np.save(folder / "x.npy", made.test.x[:5])
    words = ["predict", str(made.folder), str(folder / "x.npy"), "--key", str(made.pem)]
    return [*words, "--allow-simulated", "--json"]


def test_the_script_answers_as_the_package_does(made: Any, tmp_path: Path, capsys: Any) -> None:
    words = write_digits(made, tmp_path)
    done = run_device(words)
    assert device.main(words) == 0
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(capsys.readouterr().out)
    refused = [word for word in words if word != "--allow-simulated"]
    assert run_device(refused).returncode == device.main(refused) == 77


def test_what_the_script_imports(made: Any, tmp_path: Path) -> None:
    """Neither ours nor torch; and neither the network nor Pillow where it only predicts."""
    words = write_digits(made, tmp_path)
    script = tmp_path / "device.py"
    script.write_text(device_script(), encoding="utf-8")
    program = (
        "import runpy, sys\n"
        f"sys.argv = {[str(script), *words]!r}\n"
        "try:\n"
        f"    runpy.run_path({str(script)!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    code = end.code\n"
        "print(sorted({'torch', 'onnx', 'collegium', 'pandas', 'sklearn', 'PIL', 'ssl',"
        " 'http.client', 'urllib.request'} & set(sys.modules)))\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


def bare_environment(folder: Path) -> Path:
    """A virtual environment that holds the three packages, and what they import, as links."""
    done = subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"no virtual environment can be made here: {done.stderr[:200]}")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.check_output([python, "-c", code], text=True).strip())
    here = Path(sysconfig.get_path("purelib"))
    wanted = [p for p in here.iterdir() if p.name.split(".")[0].split("-")[0] in NEEDED]
    for path in wanted:
        if os.name == "nt":
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, site / path.name)
        else:
            (site / path.name).symlink_to(path)
    return python


@pytest.mark.slow
def test_an_environment_of_three_packages(made: Any, tmp_path: Path) -> None:
    python = bare_environment(tmp_path / "bare")
    for name in ("torch", "collegium", "onnx", "PIL", "click"):
        tried = subprocess.run([python, "-I", "-c", f"import {name}"], check=False,
                               capture_output=True, text=True)  # fmt: skip
        assert "ModuleNotFoundError" in tried.stderr, name
    script, words = tmp_path / "device.py", write_digits(made, tmp_path)
    script.write_text(device_script(), encoding="utf-8")
    expected, _ = device.verify_bundle(
        made.folder, [device.load_key(made.pem)], allow_simulated=True
    ).predict(made.test.x[:5])

    def run(*given: str) -> dict[str, Any]:
        done = subprocess.run([python, "-I", "-W", "error", str(script), *given],
                              capture_output=True, text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return dict(json.loads(done.stdout))

    assert run(*words)["labels"] == expected
    verified = run("verify", *words[1:2], *words[3:])
    assert verified["ok"] and verified["selftest_agreement"] >= 0.95

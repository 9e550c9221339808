"""The house stands as drawn: folders, floors, and what may be imported where."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (
    "cli", "client", "core", "data", "edge", "models", "privacy", "server", "simulations",
    "strategies",
)  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """The top-level modules in a fresh process after some code."""
    done = subprocess.run(
        [sys.executable, "-c", code + "\nimport sys; print(*sorted(sys.modules))"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {name.partition(".")[0] for name in done.stdout.split()}


def imports_of(path: Path) -> set[str]:
    """Every module that a file imports, anywhere in it; relative ones begin with a dot."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
    return found


def test_packages_are_the_folders() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    packages = settings["tool"]["setuptools"]["packages"]
    folders = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
    assert tuple(folders) == FOLDERS
    rooms = sorted([*folders, "edge.device"])
    assert packages == ["collegium", *(f"collegium.{name}" for name in rooms)]
    assert settings["tool"]["setuptools"]["package-dir"] == {"collegium": "."}
    deeper = {path.parent for name in folders for path in (ROOT / name).glob("*/**/*.py")}
    assert deeper == {ROOT / "edge" / "device"}, "another folder would not be in the wheel"


def test_two_python_files_at_the_root() -> None:
    assert sorted(path.name for path in ROOT.glob("*.py")) == ["__init__.py", "__main__.py"]


def test_the_package_and_its_command_import_neither_torch_nor_flower() -> None:
    heavy = {"torch", "flwr", "matplotlib", "opacus", "sklearn", "onnxruntime"}
    assert not loaded_by("import collegium") & heavy
    assert not loaded_by("import collegium.cli.main") & heavy


@pytest.mark.parametrize(
    "module", ["core.plan_file", "privacy.ledger", "privacy.statement", "strategies.catalog",
               "server.planner", "models.registry"],
)  # fmt: skip
def test_rooms_without_torch(module: str) -> None:
    assert not loaded_by(f"import collegium.{module}") & {"torch", "opacus", "flwr"}


def test_floors_hold() -> None:
    """import-linter reads .importlinter; anything that it cannot read is a failure too."""
    code = "from importlinter.cli import lint_imports_command as run; run()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_the_device_program_stands_alone() -> None:
    """Its modules import each other alone, and so does the one script that they are joined to."""
    modules = sorted((ROOT / "edge" / "device").glob("*.py"))
    found = {name for path in modules for name in imports_of(path)}
    ours = {name for name in found if name.startswith((".", "collegium"))}
    assert ours <= {f".{path.stem}" for path in modules}
    outside = {name.partition(".")[0] for name in found - ours} - set(sys.stdlib_module_names)
    assert outside <= {"numpy", "onnxruntime", "cryptography", "__future__", "PIL"}


def test_the_ledgers_verifier_stands_alone() -> None:
    path = ROOT / "privacy" / "ledger_verify.py"
    ours = {name for name in imports_of(path) if name.startswith((".", "collegium"))}
    assert ours == set()
    outside = {name.partition(".")[0] for name in imports_of(path)} - set(sys.stdlib_module_names)
    assert outside <= {"cryptography", "dp_accounting", "__future__"}


def test_rooms_import_each_other_relatively() -> None:
    """An absolute import of our own package would make every class exist twice."""
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for folder in FOLDERS
        for path in (ROOT / folder).glob("*.py")
        for name in imports_of(path)
        if name.partition(".")[0] in {"collegium", *FOLDERS}
    ]
    assert found == []


def test_flowers_internals_are_touched_in_files_named_so() -> None:
    public = {"flwr.app", "flwr.serverapp", "flwr.clientapp"}
    found = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).glob("*.py")
        for name in imports_of(path)
        if name.startswith("flwr") and name not in public
    }
    own = {name for name in found if name.partition("/")[2].startswith("_flwr")}
    assert found - own <= {"simulations/grid.py"}


def test_pickles_are_never_read() -> None:
    """No loader that can run code, anywhere; and numpy.load on no bytes of a peer."""
    banned = ("pickle", "marshal", "shelve", "dill", "joblib", "cloudpickle")
    texts = ("torch.load(", "numpy.load(", "allow_pickle=True", "weights_only=False")
    pinned = ROOT / "models" / "states.py"  # weights whose SHA-256 the plan pins, tensors only
    for folder in FOLDERS:
        for path in (ROOT / folder).glob("*.py"):
            assert not {name.partition(".")[0] for name in imports_of(path)} & set(banned)
            code = path.read_text("utf-8")
            if path == pinned:
                code = re.sub(
                    r"torch\.load\([^()]*(\([^()]*\))?[^()]*weights_only=True\)", "", code
                )
            loads = ("np.load(",) if folder in {"core", "client", "server"} else ()
            assert not [word for word in texts + loads if re.search(rf"\b{re.escape(word)}", code)]


def test_files_and_functions_stay_short() -> None:
    """No file above 400 lines, no function above 60."""
    for folder in FOLDERS:
        for path in (ROOT / folder).glob("*.py"):
            text = path.read_text("utf-8")
            assert len(text.splitlines()) <= 400, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    length = (node.end_lineno or 0) - node.lineno + 1
                    assert length <= 60, f"{path}: {node.name} has {length} lines"

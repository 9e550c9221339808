"""The device program as one plain script: the modules of ``edge/device`` joined in order."""

from __future__ import annotations

import ast
import sys
import textwrap
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

HEADER = '''#!/usr/bin/env python3
"""Verify a signed bundle and predict with it: one plain script for a device.

Needs Python 3.11, numpy, onnxruntime and cryptography; neither torch nor Collegium.
Joined from Collegium's edge/device/; `python device.py --help` lists the verbs;
`python -m device --help`, in this file's folder, is the same with 8 MB of memory less.
"""

from __future__ import annotations

'''
FOOTER = """

if __name__ == "__main__":
    return_memory_early()
    sys.exit(main())
"""
LINE = 100
STATEMENTS = (ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Module:
    """One module, taken apart: what it needs of ours and of others, what it defines."""

    name: str
    about: str
    ours: tuple[str, ...]
    imports: tuple[tuple[str, str, str], ...]  # (module or "", written, name)
    defines: tuple[str, ...]
    body: str


def device_script(folder: Path | None = None) -> str:
    """Return the text of ``device.py``; the same modules give the same text.

    ``folder`` holds the modules, by default those of Collegium. Raises ``ValueError`` for what
    cannot stand in one file: a name for two things, or an import of ours that is not plain.
    """
    paths = sorted((folder or Path(__file__).parent / "device").glob("*.py"))
    modules = {path.stem: _read(path) for path in paths if path.stem != "__init__"}
    needs = {name: module.ours for name, module in modules.items()}
    order = [modules[name] for name in TopologicalSorter(needs).static_order()]
    _require_one_meaning(order)
    parts = [_headed(module) for module in order]
    return HEADER + _imports(order) + "\n" + "\n\n".join(parts) + FOOTER


def _read(path: Path) -> _Module:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    about, *rest = tree.body
    heads = [node for node in rest if isinstance(node, ast.Import | ast.ImportFrom)]
    body = rest[len(heads) :]
    if rest[: len(heads)] != heads or not all(isinstance(n, (*STATEMENTS, ast.Expr)) for n in body):
        raise ValueError(f"{path.name}: imports come first, then definitions alone")
    ours = [node for node in heads if isinstance(node, ast.ImportFrom) and node.level]
    nested = {node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    plain = all(node.module and not any(a.asname for a in node.names) for node in ours)
    if nested != set(ours) or not plain:
        raise ValueError(f"{path.name}: ours are imported at the top, from a module, as they are")
    after = max((node.end_lineno or 0 for node in [about, *heads]), default=0)
    return _Module(
        name=path.stem,
        about=(ast.get_docstring(tree) or path.stem).splitlines()[0],
        ours=tuple(sorted({node.module or "" for node in ours})),
        imports=tuple(found for node in heads if node not in ours for found in _named(node)),
        defines=tuple(name for node in body for name in _defined(node)),
        body="".join(text.splitlines(keepends=True)[after:]).strip("\n") + "\n",
    )


def _headed(module: _Module) -> str:
    """Return a module's body under a comment that names it, with ruff's blank lines between."""
    about = f"--- {module.name}: {module.about}"
    head = textwrap.fill(about, LINE, initial_indent="# ", subsequent_indent="# ")
    gap = "\n\n" if module.body.startswith(("def ", "class ", "@")) else "\n"
    return f"{head}\n{gap}{module.body}"


def _named(node: ast.Import | ast.ImportFrom) -> list[tuple[str, str, str]]:
    """Return (module or "", what is written, the name it gets) of each, ``__future__`` aside."""
    module = (node.module or "") if isinstance(node, ast.ImportFrom) else ""
    if module == "__future__":
        return []
    return [
        (module, f"{each.name} as {each.asname}" if each.asname else each.name,
         each.asname or each.name)
        for each in node.names
    ]  # fmt: skip


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    return [n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)]


def _require_one_meaning(modules: list[_Module]) -> None:
    """Raise ``ValueError`` when a name stands for two things."""
    meant: dict[str, str] = {"sys": "import  sys"}
    for module in modules:
        own = dict.fromkeys(module.defines, f"{module.name}.py")
        others = {name: " ".join(("import", of, written)) for of, written, name in module.imports}
        for name, meaning in (own | others).items():
            if meant.setdefault(name, meaning) != meaning:
                raise ValueError(f"{name} is {meant[name]} and {meaning}")


def _imports(modules: list[_Module]) -> str:
    """Return all imports, each once: the standard library's, then the others', as ruff sorts."""
    found = {(of, written) for module in modules for of, written, _ in module.imports}
    found.add(("", "sys"))
    blocks: list[str] = []
    for standard in (True, False):
        own = {
            (of, written)
            for of, written in found
            if ((of or written).split(maxsplit=1)[0].partition(".")[0] in sys.stdlib_module_names)
            == standard
        }
        plain = sorted((written for of, written in own if not of), key=str.casefold)
        members = {of: {written for o, written in own if o == of} for of, _ in own if of}
        lines = [f"import {written}\n" for written in plain]
        lines += [_from(of, members[of]) for of in sorted(members, key=str.casefold)]
        blocks.append("".join(lines))
    return "\n".join(blocks)


def _from(module: str, members: set[str]) -> str:
    """Return one import: constants, then classes, then the rest, in lines of at most ``LINE``."""

    def place(written: str) -> tuple[int, str]:
        name = written.split(maxsplit=1)[0]
        kind = 0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2
        return kind, name

    names = sorted(members, key=place)
    line = f"from {module} import {', '.join(names)}\n"
    if len(line) <= LINE + 1:
        return line
    return f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")\n"

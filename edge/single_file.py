"""The device program as one plain script: the modules of ``edge/device`` joined in order."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from . import device

HEADER = '''#!/usr/bin/env python3
"""Verify a signed bundle and predict with it: one plain script for a device.

Needs Python 3.11, numpy, onnxruntime and cryptography; neither torch nor Collegium.
Joined from Collegium's edge/device/; `python device.py --help` lists the verbs.
"""
'''
FOOTER = '\n\nif __name__ == "__main__":\n    sys.exit(main())\n'


def device_script() -> str:
    """Return the text of ``device.py``; the same modules give the same text.

    Raises ``ValueError`` when two modules give the same name to different things, which the
    tests rule out.
    """
    folder = Path(device.__file__).parent
    sources = {
        path.stem: path.read_text(encoding="utf-8")
        for path in sorted(folder.glob("*.py"))
        if path.stem != "__init__"
    }
    trees = {name: ast.parse(text) for name, text in sources.items()}
    imports: set[str] = set()
    bodies: list[str] = []
    names: dict[str, str] = {}
    for module in _order(trees):
        parts: list[str] = []
        for node in trees[module].body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                if _is_ours(node) or _is_future(node):
                    continue
                imports.add(ast.unparse(node))
            elif not _is_docstring(node):
                _claim(names, node, module)
                parts.append(_source(sources[module], node))
        about = ast.get_docstring(trees[module]) or module
        bodies.append(f"# --- {module}: {about.splitlines()[0]}\n" + "".join(parts))
    imports.add("import sys")
    future = "\nfrom __future__ import annotations\n\n"
    return HEADER + future + "\n".join(_sorted(imports)) + "\n\n\n" + "\n".join(bodies) + FOOTER


def _order(trees: dict[str, ast.Module]) -> list[str]:
    """Return the modules so that each comes after those that it imports."""
    needs = {
        name: sorted(
            node.module
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and _is_ours(node) and node.module
        )
        for name, tree in sorted(trees.items())
    }
    return list(TopologicalSorter(needs).static_order())


def _is_ours(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.level > 0


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _claim(names: dict[str, str], node: ast.stmt, module: str) -> None:
    """Remember what a statement names; raise ``ValueError`` when another module did."""
    found: list[str] = []
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        found = [node.name]
    elif isinstance(node, ast.Assign):
        found = [target.id for target in node.targets if isinstance(target, ast.Name)]
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        found = [node.target.id]
    for name in found:
        if names.setdefault(name, module) != module:
            raise ValueError(f"{name} stands in {names[name]} and in {module}")


def _source(text: str, node: ast.stmt) -> str:
    """Return a statement as it is written, decorators and comments before it included."""
    lines = text.splitlines(keepends=True)
    decorators = getattr(node, "decorator_list", [])
    first = min([node.lineno, *(each.lineno for each in decorators)]) - 1
    while first and lines[first - 1].startswith("#"):
        first -= 1
    end = node.end_lineno or node.lineno
    gap = "\n\n" if isinstance(node, ast.FunctionDef | ast.ClassDef) else ""
    return gap + "".join(lines[first:end])


def _sorted(imports: set[str]) -> list[str]:
    return sorted(imports, key=lambda line: (line.startswith("from"), line))

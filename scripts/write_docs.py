"""Write docs/plan-reference.md from the dataclasses of plan and site file: docs cannot lie."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from collegium.core.fields import Key, item_table, key_table, keys_of
from collegium.core.plan_tables import PlanFile
from collegium.core.site_file import SiteTables

TARGET = Path(__file__).resolve().parent.parent / "docs" / "plan-reference.md"
HEAD = """# Every key of plan.toml and site.toml

Written by `python scripts/write_docs.py` from the program itself; do not edit it by hand.
`collegium init DIR` writes both files with comments; unknown keys and tables are errors.
"""


def render() -> str:
    """Return the whole page."""
    parts = [HEAD, *_page("plan.toml", PlanFile), *_page("site.toml", SiteTables)]
    return "\n".join(parts)


def _page(title: str, kind: type) -> Iterator[str]:
    yield f"## {title}\n"
    keys = keys_of(kind)
    yield _table([key for key in keys.values() if key_table(key.hint) is None])
    for key in keys.values():
        if (inner := key_table(key.hint)) is None:
            continue
        heading = f"[[{key.name}]]" if item_table(key.hint) else f"[{key.name}]"
        need = "required" if key.required else "optional"
        first = (inner.__doc__ or "").partition("\n")[0]
        yield f"### {heading}\n\n{first} *({need})*\n"
        yield _table(list(keys_of(inner).values()))


def _table(keys: list[Key]) -> str:
    rows = [("key", "values", "default", "meaning"), ("---", "---", "---", "---")]
    rows += [(f"`{k.name}`", k.allowed(), _default(k), k.about.text) for k in keys]
    cells = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in rows)
    return "\n".join(f"| {line} |" for line in cells) + "\n"


def _default(key: Key) -> str:
    if key.default is None:
        return "required"
    value = key.default()
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def main() -> None:
    """Write the page, or with ``--check`` exit 1 when it is out of date."""
    text = render()
    if "--check" in sys.argv[1:]:
        if not TARGET.exists() or TARGET.read_text(encoding="utf-8") != text:
            sys.exit("docs/plan-reference.md is out of date: python scripts/write_docs.py")
        return
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()

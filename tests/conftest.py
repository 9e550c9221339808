"""Load the package from the checkout when it is not installed."""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("collegium") is None:
    root = Path(__file__).resolve().parent.parent
    spec = importlib.util.spec_from_file_location(
        "collegium", root / "__init__.py", submodule_search_locations=[str(root)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["collegium"] = module
    spec.loader.exec_module(module)

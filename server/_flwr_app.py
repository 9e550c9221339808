"""The app bundle that travels: settings alone, the same bytes for everyone with this version.

Flower's loader finds no code in it and takes the installed package.
"""

from __future__ import annotations

from flwr.cli.build import build_fab_from_files

COMPONENT = "collegium.server.federation_app:app"

_PYPROJECT = f"""
[project]
name = "collegium-round"
version = "1.0.0"
description = "Settings of a Collegium federation; the code is what each side has installed."
license = "Apache-2.0"
dependencies = []

[tool.flwr.app]
publisher = "collegium"
fab-include = ["README.md", "LICENSE"]

[tool.flwr.app.components]
serverapp = "{COMPONENT}"
clientapp = "collegium.client.stock_app:app"

[tool.flwr.app.config]
job = ""
"""

_README = """# A Collegium federation

This bundle holds settings, never code. The coordinator and each site run the package that they
installed themselves; a site refuses any other bundle than the one its signed roster names.
"""

_LICENSE = "Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0\n"


def build_app() -> bytes:
    """Return the bundle's bytes; they depend on nothing but this version of the package."""
    bundle, _ = build_fab_from_files(
        {
            "pyproject.toml": _PYPROJECT.encode(),
            "README.md": _README.encode(),
            "LICENSE": _LICENSE.encode(),
        }
    )
    return bundle

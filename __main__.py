"""``python -m collegium``: the same as the ``collegium`` command."""

from .cli.main import main

main()

"""The public surface is a menu: every name on it exists, and reading it imports nothing heavy."""

import subprocess
import sys

import collegium


def test_every_name_on_the_menu_can_be_ordered() -> None:
    for name in collegium.__all__:
        assert getattr(collegium, name).__name__ == name


def test_unknown_names_are_attribute_errors() -> None:
    assert not hasattr(collegium, "nothing")
    assert set(collegium.__all__) <= set(dir(collegium))


def test_importing_the_package_is_light() -> None:
    code = (
        "import sys, collegium; collegium.Plan;"
        "print([name for name in ('torch', 'flwr', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

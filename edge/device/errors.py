"""A refusal by name."""

from __future__ import annotations


class DeviceError(Exception):
    """A named refusal: ``code`` in words, ``reason``, and the exit code of the process.

    Exit codes: 64 usage, 65 bad input, 66 missing, 75 can be resumed, 77 refused.
    """

    def __init__(self, code: str, reason: str, exit_code: int = 77) -> None:
        self.code, self.reason, self.exit_code = code, reason, exit_code
        super().__init__(f"{code}: {reason}")


def bad_input(reason: str) -> DeviceError:
    """Return the error for records that cannot be read: exit code 65."""
    return DeviceError("BAD INPUT", reason, 65)


def bad_file(name: str, reason: str) -> DeviceError:
    """Return the refusal of a signed file that does not say what it must say."""
    return DeviceError("BAD FILE", f"{name} {reason}")

"""A refusal by name."""

from __future__ import annotations


class DeviceError(Exception):
    """A named refusal: ``code`` in words, ``reason``, and the exit code of the process."""

    def __init__(self, code: str, reason: str, exit_code: int = 77) -> None:
        self.code, self.reason, self.exit_code = code, reason, exit_code
        super().__init__(f"{code}: {reason}")

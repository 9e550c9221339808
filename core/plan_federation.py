"""What a real federation adds to a plan: where the coordinator is, and how many must sign."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import forms
from .fields import about


@dataclass(frozen=True, slots=True, kw_only=True)
class Federation:
    """Where sites reach the coordinator, who runs it, and how many members must sign."""

    address: str = field(
        metadata=about(
            "Host and port at which the sites reach the coordinator; the host is the name in its "
            "certificate",
            fault=forms.address_fault,
            form='"HOST:PORT", like "fl.example.org:8000" or "[2001:db8::1]:8000"',
        )
    )
    coordinator: str = field(
        metadata=about(
            "Institution that runs the coordinator; signatures of its own members do not count",
            form='a text, like "university-x"',
        )
    )
    signatures: int = field(
        default=2,
        metadata=about(
            "Members, each of another institution, who must sign plan and roster", low=1, high=1000
        ),
    )

    @property
    def host(self) -> str:
        """Return the name or address in the coordinator's certificate, without brackets."""
        return forms.split_address(self.address)[0]

    @property
    def port(self) -> int:
        """Return the port at which the coordinator answers."""
        return forms.split_address(self.address)[1]

"""All checks of a site before it connects: what, how it stands, and the cure. Nothing leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..core.errors import CollegiumError, InvalidInput, NotAvailable
from ..core.site_file import SiteFile

if TYPE_CHECKING:
    from .kit import Kit

State = Literal["ok", "warning", "problem", "unknown"]
Part = Literal["both", "network", "records"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """How one check came out; ``unknown``: it could not be made from here."""

    check: str
    state: State
    text: str
    cure: str = ""


Check = Callable[[], Iterator[Finding]]


def ok(check: str, text: str) -> Finding:
    """Return a check that passed."""
    return Finding(check=check, state="ok", text=text)


def warning(check: str, text: str, cure: str) -> Finding:
    """Return a check that passed, with something that people should know."""
    return Finding(check=check, state="warning", text=text, cure=cure)


def problem(check: str, text: str, cure: str) -> Finding:
    """Return a check that did not pass: the site must not start."""
    return Finding(check=check, state="problem", text=text, cure=cure)


def unknown(check: str, text: str, cure: str) -> Finding:
    """Return a check that could not be made."""
    return Finding(check=check, state="unknown", text=text, cure=cure)


def preflight(file: SiteFile, *, part: Part = "both") -> Iterator[Finding]:
    """Yield every finding, cheapest first, as it is made; a check never stops the next.

    ``network`` looks at what the SuperNode's user can see, ``records`` at what the user beside
    the records can: that one may have no network at all. torch is imported for the last checks.
    """
    from .preflight_host import host_checks

    yield from made("this machine", lambda: host_checks(file, part=part))
    kit: list[Kit] = []
    yield from made("kit", lambda: _kit(file, kit, part=part))
    if not kit:
        yield unknown(
            "policy, records, coordinator", "not looked at", "install a kit that passes, first"
        )
        return
    if part != "records":
        from .preflight_link import link_checks

        yield from made("coordinator", lambda: link_checks(kit[0]))
    if part != "network":
        from .preflight_records import record_checks

        yield from record_checks(file, kit[0])


def made(name: str, check: Check) -> Iterator[Finding]:
    """Yield what a check finds; an error of ours is a problem with its own cure."""
    try:
        yield from check()
    except InvalidInput as error:
        if not error.problems:
            yield problem(name, f"{error.what}. {error.why}".strip(), error.cure)
        for each in error.problems:
            yield problem(name, f"{error.source}, {each.where}: {each.what}", each.cure)
    except NotAvailable as error:
        yield problem(name, error.what, error.cure)
    except CollegiumError as error:
        why = f" ({error.why})" if error.why else ""
        yield problem(name, f"{error.what}{why}", error.cure)
    except OSError as error:
        yield unknown(name, f"{error.strerror or type(error).__name__}", "look at its rights")


def _kit(file: SiteFile, found: list[Kit], *, part: Part) -> Iterator[Finding]:
    from .kit import load_kit
    from .network import load_network_kit

    kit = load_network_kit(file) if part == "network" else load_kit(file)
    found.append(kit)
    known = {member.public_key: member for member in kit.roster.members}
    names = [f"{known[key].name} ({known[key].institution})" for key in kit.agreement.signers]
    signed = f"plan and roster are signed by {', '.join(names) or 'nobody that you pinned'}"
    if kit.roster.lab:
        yield warning("kit", f"a lab roster; {signed}", "use it for trials alone")
    else:
        yield ok("kit", f"complete; {signed}")

"""The drawn error tree: what reaches a user, and with which exit code.

::

    CollegiumError                     70  a bug, unless a member below says otherwise
    +-- GateFailed                      1  a gate (parity, audit) was not passed
    +-- LedgerTampered                  2
    +-- LedgerRolledBack                3  rolled back or forked
    +-- OverBudget                      4
    +-- AccountingMismatch              5
    +-- UsageError                     64
    +-- InvalidInput                   65  bad plan, site file or data
    |   +-- InvalidPlan
    |   +-- InvalidSiteFile
    +-- MissingInput                   66
    +-- NotAvailable                   69  platform or missing extra
    |   +-- NotBuiltYet
    +-- OutputExists                   73
    +-- Interrupted                    75  can be resumed
    +-- ClipperMismatch                70  a clipping engine and autograd disagree: a bug
    +-- Refused                        77  policy, signature, version, expiry
        +-- NotLoaded
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong with an input, in the user's words.

    ``where`` is a file, key or line; no field ever holds a record's content.
    """

    where: str
    what: str
    why: str
    cure: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.why}. {_cure(self.cure)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What admission, policy, checks and parity return: a closed code, a reason, a cure."""

    ok: bool
    code: str = "ok"
    reason: str = ""
    cure: str = ""


ACCEPT = Verdict(ok=True)


def refuse(code: str, reason: str, cure: str = "") -> Verdict:
    """Return a negative verdict with its reason code."""
    return Verdict(ok=False, code=code, reason=reason, cure=cure)


class CollegiumError(Exception):
    """An error that is shown to the user as one message, without a traceback."""

    exit_code = 70

    def __init__(self, what: str, *, why: str = "", cure: str = "") -> None:
        self.what, self.why, self.cure = what, why, cure
        super().__init__(self.message())

    def message(self) -> str:
        """Return what went wrong, why, and the cure, as one paragraph."""
        parts = [self.what.rstrip(".") + "."]
        if self.why:
            parts.append(_sentence(self.why))
        if self.cure:
            parts.append(_cure(self.cure))
        return " ".join(parts)


def _cure(text: str) -> str:
    """Return a cure as the end of a message; one that asks something keeps its question mark."""
    return f"Cure: {text}" if text.endswith("?") else f"Cure: {text.rstrip('.')}."


def _sentence(text: str) -> str:
    """Return ``text`` as a sentence; a first word that is a name (fp32, `init`) stays as it is."""
    plain = text.partition(" ")[0].isalpha()
    return (text[0].upper() + text[1:] if plain else text).rstrip(".") + "."


class GateFailed(CollegiumError):
    """A gate (parity, audit) was not passed."""

    exit_code = 1


class LedgerTampered(CollegiumError):
    """A ledger's chain or signature does not hold."""

    exit_code = 2


class LedgerRolledBack(CollegiumError):
    """A ledger is older than a head that was seen elsewhere, or forked from it."""

    exit_code = 3


class OverBudget(CollegiumError):
    """A reserve would exceed the asset's privacy budget."""

    exit_code = 4


class AccountingMismatch(CollegiumError):
    """A recomputed epsilon is larger than the claimed one."""

    exit_code = 5


class UsageError(CollegiumError):
    """The command line or a call was used wrongly."""

    exit_code = 64


class InvalidInput(CollegiumError):
    """A plan, site file or data set is wrong; carries every problem that was found."""

    exit_code = 65
    noun = "input"

    def __init__(
        self, source: str, problems: Sequence[Problem] = (), *, why: str = "", cure: str = ""
    ) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(source, why=why, cure=cure)

    def message(self) -> str:
        """Return one line for the source and one for each problem."""
        if not self.problems:
            return super().message()
        count = len(self.problems)
        head = f"{self.source}: {count} problem{'s' if count != 1 else ''} in this {self.noun}"
        return "\n".join([head, *(f"  - {problem}" for problem in self.problems)])


class InvalidPlan(InvalidInput):
    """A plan is wrong."""

    noun = "plan"


class InvalidSiteFile(InvalidInput):
    """A site file is wrong."""

    noun = "site file"


class MissingInput(CollegiumError):
    """A file or folder that a verb needs is not there."""

    exit_code = 66


class NotAvailable(CollegiumError):
    """Something cannot be done on this platform or without an extra."""

    exit_code = 69


class NotBuiltYet(NotAvailable):
    """A verb or option is part of the design but not of this version."""


class OutputExists(CollegiumError):
    """The output folder already holds a run."""

    exit_code = 73


class Interrupted(CollegiumError):
    """The work stopped before its end and can be resumed."""

    exit_code = 75


class Refused(CollegiumError):
    """A policy, signature, version or expiry check said no."""

    exit_code = 77


class NotLoaded(Refused):
    """What lies on disk is not what a running process has loaded."""


class ClipperMismatch(CollegiumError):
    """A clipping engine and plain autograd disagree on synthetic records."""

    exit_code = 70

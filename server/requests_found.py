"""What a coordinator has received: requests of members and sites, and signed envelopes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.agreement import Envelope, read_envelope
from ..core.errors import InvalidInput, MissingInput, Problem
from ..core.forms import folded
from ..core.plan import Plan
from ..core.plan_federation import Federation
from ..core.requests import SUFFIX, MemberRequest, Request, SiteRequest, read_request
from ..core.roster import same_institution


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All requests and envelopes in a folder; ``problems`` are files that cannot be used."""

    members: tuple[MemberRequest, ...]
    sites: tuple[SiteRequest, ...]
    envelopes: tuple[Envelope, ...]
    problems: tuple[Problem, ...]


def read_requests(folder: Path) -> Found:
    """Return what lies in ``folder`` and below: ``*.request.json`` and ``*.dsse``.

    Raises ``MissingInput`` when there is no such folder; a broken file becomes a problem.
    """
    if not folder.is_dir():
        raise MissingInput(
            f"there is no folder {folder}",
            why="it holds the requests that members and sites sent",
            cure="make it and put their .request.json files into it",
        )
    problems: list[Problem] = []
    requests: dict[Request, Path] = {}
    for path in sorted(folder.rglob(f"*{SUFFIX}")):
        try:
            requests.setdefault(read_request(path.read_bytes()), path)
        except InvalidInput as error:
            problems.append(_problem(path, error))
    problems += _conflicts(requests.items())
    return Found(
        members=tuple(
            sorted((r for r in requests if isinstance(r, MemberRequest)), key=lambda r: r.name)
        ),
        sites=tuple(r for r in requests if isinstance(r, SiteRequest)),
        envelopes=tuple(_envelopes(folder, problems)),
        problems=tuple(problems),
    )


def require_complete(plan: Plan, federation: Federation, found: Found) -> None:
    """Raise unless every site and enough members have sent a request, with all that is missing.

    Raises ``InvalidInput`` (65) when a request is wrong and ``MissingInput`` (66) when one is
    not there.
    """
    missing = list(_missing(plan, federation, found))
    problems = [*found.problems, *_other_keys(plan, found)]
    if problems:
        absent = [
            Problem(where="requests", what=what, why="it is not there", cure=cure)
            for what, cure in missing
        ]
        raise InvalidInput("the requests", problems + absent)
    if missing:
        raise MissingInput(
            f"not yet there: {'; '.join(what for what, _ in missing)}",
            why="a roster holds every site's keys and enough members to sign it",
            cure="; ".join(dict.fromkeys(cure for _, cure in missing)),
        )


def notes_on(plan: Plan, federation: Federation, found: Found) -> Iterator[str]:
    """Yield what a careful coordinator would want to be told about the requests."""
    names = {site.name for site in plan.sites}
    for site in found.sites:
        if site.name not in names:
            yield f"the request of site {site.name} is left out: the plan has no such site"
    for member in found.members:
        if same_institution(member.institution, federation.coordinator):
            yield (
                f"{member.name}'s signature will not count: {member.institution} runs the "
                "coordinator"
            )


def _missing(plan: Plan, federation: Federation, found: Found) -> Iterator[tuple[str, str]]:
    there = {site.name for site in found.sites}
    for site in plan.sites:
        if site.name not in there:
            cure = "each site runs `collegium site enroll` and sends its .request.json"
            yield f"the request of site {site.name}", cure
    institutions = {
        folded(member.institution)
        for member in found.members
        if not same_institution(member.institution, federation.coordinator)
    }
    if lacking := federation.signatures - len(institutions):
        if lacking < 0:
            return
        whom = (
            "a member of 1 more institution"
            if lacking == 1
            else (f"members of {lacking} more institutions")
        )
        yield (
            f"the request of {whom} (the coordinator's own does not count)",
            "members run `collegium consortium enroll` and send their .request.json",
        )


def _conflicts(requests: Iterable[tuple[Request, Path]]) -> Iterator[Problem]:
    """Two requests of one name, or one key in two requests."""
    seen: dict[tuple[str, str], Path] = {}
    for request, path in requests:
        kind = "site" if isinstance(request, SiteRequest) else "member"
        words = [(f"{kind} name", request.name), ("key", request.public_key)]
        if isinstance(request, SiteRequest):
            words.append(("SuperNode key", request.supernode_key))
        for what, value in words:
            first = seen.setdefault((what, value), path)
            if first != path:
                yield Problem(
                    where=path.name,
                    what=f"has the same {what} as {first}",
                    why="One name is one party and one key is one party",
                    cure="ask both which request is right, and remove the other",
                )


def _other_keys(plan: Plan, found: Found) -> Iterator[Problem]:
    named = {site.name: site.public_key for site in plan.sites}
    for site in found.sites:
        if named.get(site.name) not in (None, site.public_key):
            yield Problem(
                where=f"site {site.name}",
                what="has another key in its request than in the plan",
                why="The plan's [[sites]] public_key is what its members agreed on",
                cure="ask the site which key is right; change plan or request",
            )


def _envelopes(folder: Path, problems: list[Problem]) -> Iterator[Envelope]:
    for path in sorted(folder.rglob("*.dsse")):
        try:
            yield read_envelope(path.read_bytes())
        except InvalidInput as error:
            problems.append(_problem(path, error))


def _problem(path: Path, error: InvalidInput) -> Problem:
    why = error.why or "It was damaged or is something else"
    return Problem(where=path.name, what=error.source, why=why, cure=error.cure)

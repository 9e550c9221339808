"""A simulation's records from site files: each site's own, or one file dealt to all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..client.policy import Policy, plugins_of
from ..client.words import policy_of
from ..core.errors import InvalidInput, MissingInput, Refused
from ..core.plan import Plan
from ..core.site_file import SiteFile
from ..data.public import PublicSet
from .dealing import dealt
from .reading import read
from .records import Records, simulation_of


def records_of_files(plan: Plan) -> Records:
    """Return the records that ``[simulation] files`` names, read as real sites read theirs.

    A folder holds one ``NAME.toml`` per site, whose policy is kept, too; the global test part is
    the sites' own, where they say that it is public. One file's training records are dealt to
    all sites; its test part is the global one. Raises what the readers raise.
    """
    path = Path(simulation_of(plan).files or "")
    if path.is_dir():
        if simulation_of(plan).public_share:
            raise InvalidInput(
                "[simulation] public_share and a folder of site files",
                why="every record of such a file belongs to its site",
                cure="name one file that is dealt to all sites, or set public_share = 0",
            )
        return _each_site(plan, path)
    if not path.is_file():
        raise MissingInput(
            f"there is no {path}",
            why="[simulation] files names a folder of site files, or one site file",
            cure="correct it; it is relative to plan.toml",
        )
    file = SiteFile.load(path)
    if unnamed := sorted(plugins_of(plan) - set(file.policy.plugins)):
        raise Refused(
            f"[policy] plugins of {path.name} does not name {', '.join(unnamed)}",
            why="code of another package runs beside records only where their site says so",
            cure="add it there, if you trust that package",
        )
    _require_public(plan, file, path)
    return dealt(plan, file.data.asset, read(file, path, plan))


def _require_public(plan: Plan, file: SiteFile, path: Path) -> None:
    """Raise ``Refused`` unless the file's owner says public what the plan makes public."""
    if simulation_of(plan).public_share and not file.policy.open_data:
        raise Refused(
            f"{path.name} does not say that its records are open data",
            why="[simulation] public_share would show some of them to every device",
            cure="set [policy] open_data = true there if everybody may see them already, or "
            "public_share = 0",
        )
    if plan.edge.student != "none" and not file.policy.public_test:
        raise Refused(
            f"{path.name} does not declare its test part public",
            why="the edge stage quotes exact figures of it beside the small model",
            cure='set [policy] public_test = true there, or write [edge] student = "none"',
        )


def _each_site(plan: Plan, folder: Path) -> Records:
    files = {site.name: _site_file(folder, site.name) for site in plan.sites}
    policies = {name: _policy(file, plan) for name, file in files.items()}
    by_site = {name: read(file, folder / f"{name}.toml", plan) for name, file in files.items()}
    parts = list(by_site.values()) if plan.evaluation.origin == "public" else []
    empty = next(iter(by_site.values()))
    test = PublicSet(
        name="the sites' test parts",
        origin="public",
        x=np.concatenate([empty.test_x[:0], *(part.test_x for part in parts)]),
        y=np.concatenate([empty.test_y[:0], *(part.test_y for part in parts)]),
    )
    owners = [np.full(len(part.test_y), name) for name, part in by_site.items() if parts]
    return Records(
        by_site=by_site,
        test=test,
        test_sites=np.concatenate(owners) if owners else None,
        policies=policies,
    )


def _site_file(folder: Path, name: str) -> SiteFile:
    file = SiteFile.load(folder / f"{name}.toml")
    if file.site.name != name:
        raise InvalidInput(
            f"{folder.name}/{name}.toml is the file of site '{file.site.name}'",
            why="each site of the plan has a file under its own name",
            cure="correct [site] name, or rename the file",
        )
    return file


def _policy(file: SiteFile, plan: Plan) -> Policy:
    """Return a site's own policy; raises ``Refused`` where its test part is not public."""
    policy = policy_of(file, private=plan.privacy.enabled)
    if plan.evaluation.origin == "public" and not policy.public_test:
        raise Refused(
            f"site '{file.site.name}' does not declare its test part public",
            why="[evaluation] origin = 'public' tells exact metrics of it",
            cure="set [policy] public_test = true there, or agree on origin = 'private'",
        )
    return policy

"""Reading a site's records for a simulation: an error says which site's file it is about."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ..client.words import read_records
from ..core.errors import CollegiumError, InvalidInput
from ..core.plan import Plan
from ..core.site_file import SiteFile
from ..data.checks import check
from ..data.site_data import SiteData
from .records import Records, simulation_seed


def read(file: SiteFile, path: Path, plan: Plan) -> SiteData:
    """Return the records that a site file names; raises what the readers raise, with its name."""
    with named(f"{path.parent.name}/{path.name}"):
        return read_records(file, plan, seed=simulation_seed(plan))


@contextmanager
def named(name: str) -> Generator[None]:
    """Say in every error about a site's records which site file led to them."""
    try:
        yield
    except InvalidInput as error:
        source = f"{name}: {error.source}"
        raise InvalidInput(source, error.problems, why=error.why, cure=error.cure) from error
    except CollegiumError as error:
        raise type(error)(f"{name}: {error.what}", why=error.why, cure=error.cure) from error


def require_fit(plan: Plan, records: Records) -> None:
    """Raise ``InvalidInput`` unless every site's records can take part in the plan.

    Each site checks this again when it opens; here nothing has been written yet.
    """
    for site in plan.sites:
        if site.name not in records.by_site:
            continue  # `assemble` says so
        problems = check(
            records.by_site[site.name],
            model=plan.model,
            public_records=site.public_records,
            unit=plan.privacy.unit,
        )
        if problems:
            raise InvalidInput(f"the records of site '{site.name}'", problems)

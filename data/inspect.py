"""What people should know of a site's records before they take part; shown at the site alone."""

from __future__ import annotations

from ..core.plan import Plan
from ..core.site_file import SiteFile
from .findings import Finding
from .inspect_columns import column_findings
from .inspect_file import file_findings
from .inspect_labels import label_findings
from .inspect_parts import part_findings
from .site_data import SiteData

__all__ = ["Finding", "inspect"]


def inspect(data: SiteData, plan: Plan, file: SiteFile) -> list[Finding]:
    """Return everything that looks wrong but does not keep the site from taking part.

    It names columns, shares and counts, never a value. What does keep a site out is raised by
    ``read_site_data`` or listed by ``checks.check``; both come first. ``data`` is raw: texts
    that are not encoded, or encoded ones.
    """
    return [
        *part_findings(data, plan),
        *label_findings(data, plan.model),
        *column_findings(data, plan.model, file.data),
        *file_findings(file, plan),
    ]

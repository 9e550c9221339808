"""Private data may never touch what is released."""

import pytest

from collegium.core.errors import Refused
from collegium.privacy.origin import RELEASABLE, require_releasable


@pytest.mark.parametrize("origin", RELEASABLE)
def test_releasable(origin: str) -> None:
    require_releasable(origin, "distillation")


@pytest.mark.parametrize("origin", ["private", "", "Public", "unknown"])
def test_everything_else_is_refused(origin: str) -> None:
    with pytest.raises(Refused, match="distillation"):
        require_releasable(origin, "distillation")

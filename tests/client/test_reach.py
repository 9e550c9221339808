"""How far a round can lead: the largest honest update of any site, times the server's rate."""

from collections.abc import Callable
from typing import Any

import pytest

from collegium.client.reach import round_reach
from collegium.client.words import mechanisms
from collegium.core.codec import codec
from collegium.privacy.bounds import update_norm_bound

Make = Callable[..., Any]


@pytest.mark.parametrize("name", ["float32", "bf16", "int8"])
def test_it_is_the_largest_sites_bound_however_small_the_asking_site_is(
    make_plan: Make, name: str
) -> None:
    plan = make_plan(
        2, records=(40, 10), codec=name, strategy={"server_learning_rate": 3.0}, learning_rate=0.5
    )
    specs = mechanisms(plan, trainable_digest="")
    bounds = [
        update_norm_bound(
            specs[ref.name], size=8, public_records=ref.public_records, learning_rate=0.5
        )
        for ref in plan.sites
    ]
    assert bounds[0] != bounds[1]
    wanted = 3.0 * (1 + codec(name).relative_error) * max(bounds)
    assert round_reach(plan, specs, size=8) == pytest.approx(wanted, rel=1e-12)

"""[hardware] of a site's file reaches the training: parts, precision, and what cannot be."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from collegium.core.codec import codec
from collegium.core.errors import InvalidInput
from collegium.core.messages import Update

Make = Callable[..., Any]


def update_of(town: Any) -> np.ndarray:
    """The first round's update of the site as its file stands."""
    site = town.open()
    try:
        reply = site.train(town.ask(site))
        Update.open(reply, site.public_key)
        return codec(town.plan.codec.name).decode(reply.payload, site._trainer.layout.size)
    finally:
        site.ledger.close()


def with_hardware(town: Any, **keys: Any) -> Any:
    lines = "".join(f"{name} = {value}\n" for name, value in keys.items())
    path = town.home / "site.toml"
    path.write_text(path.read_text("utf-8") + "\n[hardware]\n" + lines, "utf-8")
    return town


def test_parts_and_precision_of_the_site_file(make_town: Make, make_plan: Make) -> None:
    """Seeded noise: parts give the same update to rounding, bf16 one that is near."""
    plan = make_plan(2, local_steps=3)  # the open head is 0, exact in any precision
    whole = update_of(make_town(plan, lab=True, folder="a"))
    again = update_of(make_town(plan, lab=True, folder="b"))
    assert whole.tobytes() == again.tobytes()
    parts = update_of(with_hardware(make_town(plan, lab=True, folder="c"), micro_batch=3))
    assert np.linalg.norm(parts - whole) <= 1e-6 * np.linalg.norm(whole)
    rough = update_of(with_hardware(make_town(plan, lab=True, folder="d"), precision='"bf16"'))
    assert 0 < np.linalg.norm(rough - whole) <= 0.05 * np.linalg.norm(whole)


def test_nothing_frozen_nothing_compiled(make_town: Make) -> None:
    with pytest.raises(InvalidInput, match="no part of this model is frozen"):
        with_hardware(make_town(lab=True), compile="true").open()

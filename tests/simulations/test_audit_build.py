"""The checks on this build: made-up inputs through every trained layer."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from collegium.data.site_data import SiteData
from collegium.privacy.conformance_insertion import SENSITIVITY
from collegium.simulations.audit import audit_run
from collegium.simulations.demo import demo_plan
from collegium.simulations.short_run import short_run


def test_every_layer_of_the_glyph_network_gets_a_canary(tmp_path: Path) -> None:
    """All of a convolutional model trains: nine layers, one canary each, and one for all."""
    base = demo_plan("digits")
    plan = replace(
        base,
        model=replace(base.model, trainable="all"),
        sites=tuple(replace(site, public_records=20) for site in base.sites[:2]),
        rounds=replace(base.rounds, count=1),
    )
    rng = np.random.default_rng(0)
    records = {
        site.name: SiteData(
            asset=site.name,
            train_x=rng.uniform(0, 16, (12, 8, 8)).astype(np.float32),
            train_y=rng.integers(0, 10, 12),
            test_x=np.zeros((0, 8, 8), np.float32),
            test_y=np.zeros(0, np.int64),
        )
        for site in plan.sites
    }
    short_run(plan, records, tmp_path / "run")
    values = audit_run(tmp_path / "run")
    assert values["passed"], [row for row in values["tests"] if row["verdict"] == "failed"]
    texts = [row["statistic"] for row in values["tests"] if row["name"] == SENSITIVITY]
    assert any("of 9 canaries above C" in text for text in texts), texts

"""The coordinator's copy of the open model is the sites' own."""

from typing import Any

import numpy as np

from collegium.data.public import PublicSet
from collegium.server.opening import mechanisms, opening


def test_layout_vector_and_mechanisms_are_those_of_the_sites(make_lab: Any) -> None:
    lab = make_lab()
    found = opening(lab.plan)
    assert found.layout == lab.consortium.layout
    assert found.vector.tobytes() == lab.consortium.opened.tobytes()
    assert dict(mechanisms(lab.plan, found.layout)) == dict(lab.consortium.specs)


def test_a_vector_is_measured_on_public_records_alone(make_plan: Any) -> None:
    found = opening(make_plan())
    rng = np.random.default_rng(1)
    x = rng.uniform(-1, 1, (50, 3)).astype(np.float32)
    test = PublicSet(name="p", origin="public", x=x, y=(x[:, 0] > 0).astype(np.int64))
    perfect = np.zeros_like(found.vector)
    perfect[:6] = [-9, 0, 0, 9, 0, 0]  # (2 classes, 3 features): the sign of the first feature
    assert found.measure(perfect, test)["accuracy"] == 1.0
    assert found.measure(perfect, None) == {}
    unlabelled = PublicSet(name="p", origin="public", x=x)
    assert found.measure(perfect, unlabelled) == {}
    assert found.measure_open_model(None) == {}

"""One file is one asset: no plan over it, and no new name for it, makes a second budget."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.client.words import open_ledger, policy_of, read_records
from collegium.core.errors import Refused
from collegium.core.signing import generate_key
from collegium.core.site_file import (
    DataSection,
    LedgerSection,
    PolicySection,
    SiteFile,
    SiteSection,
)

Make = Callable[..., Any]
KEY = generate_key()
BOUNDS = {"age": (0.0, 99.0), "dose": (0.0, 9.0)}
WARD = {"ward": ("A", "B")}


@pytest.fixture
def opened(tmp_path: Path, make_plan: Make) -> Make:
    """Open and close the ledger of a csv file; return the kinds of its entries."""
    rng = np.random.default_rng(0)
    lines = ["age,dose,ward,sex,outcome"]
    for number in range(20):
        dose = "" if number == 3 else f"{rng.uniform(0, 9):.3f}"
        lines.append(f"{rng.integers(99)},{dose},{'AB'[number % 2]},{number % 3 % 2},ill")
    (tmp_path / "r.csv").write_text("\n".join(lines))

    def act(asset: str = "ward", path: str = "r.csv", *, attach: Any = None, **model: Any) -> Any:
        plan = make_plan(1)
        values = {"bounds": BOUNDS, "categories": WARD, "classes": ("ill", "well")} | model
        plan = replace(plan, model=replace(plan.model, **values))
        file = SiteFile(
            site=SiteSection(name="s0"),
            data=DataSection(
                asset=asset, reader="npz" if path.endswith("npz") else "csv", path=path,
                label="outcome", incomplete="drop",
            ),
            policy=PolicySection(max_epsilon=1, delta=1e-5),
            ledger=LedgerSection(path=f"{asset}.sqlite"),
            folder=tmp_path,
        )  # fmt: skip
        data = read_records(file, plan)
        if path == "r.csv":
            np.savez(
                tmp_path / "r.npz",
                **{f"{part}_{a}": getattr(data, f"{part}_{a}")
                   for part in ("train", "test") for a in "xy"},
            )  # fmt: skip
        ledger = open_ledger(file, policy_of(file), KEY, data, attach=attach)
        ledger.close()
        return [entry.kind for entry in ledger.entries()]

    return act


PLANS: dict[str, dict[str, Any]] = {
    "categories swapped": {"categories": {"ward": ("B", "A")}},
    "a category less": {"categories": {}},
    "a feature less, and a record more": {"bounds": {"age": (0.0, 99.0)}},
    "features swapped": {"bounds": dict(reversed(BOUNDS.items()))},
    "classes swapped": {"classes": ("well", "ill")},
}


@pytest.mark.parametrize("change", PLANS)
def test_another_plan_over_one_file(opened: Make, change: str) -> None:
    """It is the same asset (and needs no word), and under a new name it is refused."""
    assert opened() == ["genesis"]
    with pytest.raises(Refused, match="no fresh budget"):
        opened("renamed", **PLANS[change])
    assert opened(**PLANS[change]) == ["genesis"]
    with pytest.raises(Refused, match="no fresh budget"):
        opened("renamed")


def test_another_format_of_what_the_plan_reads(opened: Make) -> None:
    """Arrays have no names, so they are known by what the plan makes of both."""
    raw = {"categories": {}, "bounds": {**BOUNDS, "sex": (0.0, 1.0)}}
    assert opened(**raw) == ["genesis"]
    with pytest.raises(Refused, match="no fresh budget"):
        opened("renamed", "r.npz", **raw)
    assert opened(path="r.npz", **raw) == ["genesis", "policy"]
    assert opened(path="r.npz", **raw) == ["genesis", "policy"]


def test_another_file_waits_to_be_attached(opened: Make, tmp_path: Path) -> None:
    opened()
    text = (tmp_path / "r.csv").read_text()
    (tmp_path / "more.csv").write_text(text + "\n50,1.5,A,1,ill")
    with pytest.raises(Refused, match="unknown export"):
        opened(path="more.csv")
    assert opened(path="more.csv", attach="2025, checked") == ["genesis", "policy"]
    assert opened(path="more.csv", **PLANS["a category less"]) == ["genesis", "policy"]
    with pytest.raises(Refused, match="no fresh budget"):
        opened("renamed", "more.csv")

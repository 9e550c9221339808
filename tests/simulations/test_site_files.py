"""Records of a simulation from site files: each site's own, or one file dealt to all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collegium.core.errors import InvalidInput, MissingInput, Refused
from collegium.core.plan import Plan, Simulation
from collegium.core.plan_fitting import Calibration
from collegium.core.site_file import SiteFile
from collegium.data.split import dirichlet, holdout
from collegium.simulations.reading import read, require_fit
from collegium.simulations.records import split_records
from collegium.simulations.run import simulate

MakePlan = Callable[..., Plan]

SITE = """schema = 1
[site]
name = "{name}"
mode = "simulation"
[data]
asset = "asset-{asset}"
reader = "csv"
path = "{file}"
label = "outcome"
test_share = 0.3
[policy]
max_epsilon = 5.0
delta = 1e-2
public_test = {public}
max_sampling_rate = 1.0
metrics = ["accuracy"]
[ledger]
path = "own.sqlite"
"""


def write_site(folder: Path, name: str, *, count: int = 30, public: str = "true") -> None:
    rng = np.random.default_rng(len(name) + ord(name[-1]))
    rows = ["age,dose,mass,outcome"]
    for _ in range(count):
        values = rng.uniform(-1, 1, 3)
        rows.append(",".join(f"{v:.4f}" for v in values) + f",{int(values[0] > 0)}")
    (folder / f"{name}.csv").write_text("\n".join(rows))
    text = SITE.format(name=name, asset=name, file=f"{name}.csv", public=public)
    (folder / f"{name}.toml").write_text(text)


@pytest.fixture
def plan(make_plan: MakePlan, tmp_path: Path) -> Plan:
    made = make_plan(2, rounds=2)
    for site in made.sites:
        write_site(tmp_path, site.name)
    return replace(made, simulation=Simulation(dataset="files", files=str(tmp_path), seed=1))


def test_every_site_reads_its_own_file(plan: Plan) -> None:
    found = split_records(plan)
    assert set(found.by_site) == {"s0", "s1"}
    assert sum(len(d.train_y) + len(d.test_y) for d in found.by_site.values()) == 60
    assert found.test_sites is not None
    assert (
        len(found.test)
        == len(found.test_sites)
        == sum(len(data.test_y) for data in found.by_site.values())
    )
    assert found.policies is not None and found.policies["s0"].budget.epsilon == 5.0


def test_another_seed_is_another_split(plan: Plan) -> None:
    assert plan.simulation is not None
    other = replace(plan, simulation=replace(plan.simulation, seed=2))
    one, two = (split_records(p).by_site["s0"].test_x for p in (plan, other))
    assert one.shape != two.shape or not np.array_equal(one, two)
    again = split_records(plan).by_site["s0"].test_x
    np.testing.assert_array_equal(one, again)


def test_a_run_tells_the_figures_of_each_site(plan: Plan, tmp_path: Path) -> None:
    values = simulate(plan, out=tmp_path / "run").values
    assert set(values["global"]["by_site"]) == {"s0", "s1"}
    mean = np.mean([each["accuracy"] for each in values["global"]["by_site"].values()])
    assert values["global"]["metrics"]["macro_accuracy"] == pytest.approx(mean)
    assert set(values["majority"]["by_site"]) == {"s0", "s1"}
    assert set(values["local"]["own_by_site"]) == {"s0", "s1"}
    assert {site["name"] for site in values["sites"] if site["metrics"]} == {"s0", "s1"}


def test_the_policy_of_a_site_file_holds_in_a_simulation(plan: Plan, tmp_path: Path) -> None:
    path = tmp_path / "s1.toml"
    path.write_text(path.read_text().replace("_rate = 1.0", "_rate = 0.01"))
    values = simulate(plan, out=tmp_path / "run").values
    for entry in values["history"]:
        assert entry["sites"] == ["s0"]
        assert entry["refused"] == [{"site": "s1", "code": "policy-rate"}]
    assert {site["name"]: site["metrics"] for site in values["sites"]}["s1"] is None


def test_a_test_part_that_is_not_public_is_not_told(plan: Plan, tmp_path: Path) -> None:
    write_site(tmp_path, "s1", public="false")
    with pytest.raises(Refused, match="does not declare its test part public"):
        split_records(plan)


def test_one_file_is_dealt_to_all_sites(plan: Plan, tmp_path: Path) -> None:
    write_site(tmp_path, "pool", count=50)
    dealt = replace(
        plan,
        simulation=Simulation(dataset="files", files=str(tmp_path / "pool.toml"), split="iid"),
    )
    found = split_records(dealt)
    assert found.test_sites is None and found.policies is None
    parts = [len(d.train_y) + len(d.test_y) for d in found.by_site.values()]
    assert sum(parts) + len(found.test) == 50
    assert abs(parts[0] - parts[1]) <= 1


def test_what_is_not_there_or_not_this_site(plan: Plan, tmp_path: Path) -> None:
    assert plan.simulation is not None
    lost = replace(plan, simulation=replace(plan.simulation, files=str(tmp_path / "nowhere")))
    with pytest.raises(MissingInput, match="nowhere"):
        split_records(lost)
    (tmp_path / "s1.toml").write_text((tmp_path / "s0.toml").read_text())
    with pytest.raises(InvalidInput, match="is the file of site 's0'"):
        split_records(plan)


def test_a_mistake_leaves_the_out_folder_as_it_was(plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "run"
    good = (tmp_path / "s1.csv").read_text()
    (tmp_path / "s1.csv").write_text("")
    with pytest.raises(InvalidInput, match=r"s1\.toml: s1\.csv is empty"):
        simulate(plan, out=out)
    assert not list(out.iterdir())
    (tmp_path / "s1.csv").write_text(good)
    assert simulate(plan, out=out).values["rounds"] == 2  # the same command, once it is mended


def test_a_roster_that_is_too_small_is_said_before_anything_is_written(
    plan: Plan, tmp_path: Path
) -> None:
    small = replace(plan, sites=(plan.sites[0], replace(plan.sites[1], public_records=3)))
    with pytest.raises(InvalidInput, match="site 's1'") as caught:
        simulate(small, out=tmp_path / "run")
    assert "public_records" in str(caught.value.problems)
    assert not list((tmp_path / "run").iterdir())


def test_what_a_run_has_begun_stays(plan: Plan, tmp_path: Path) -> None:
    """Ledgers are never removed, whatever ends the run."""
    out = tmp_path / "run"

    def fail(_: object) -> None:
        raise InvalidInput("a callback's own mistake")

    with pytest.raises(InvalidInput, match="callback"):
        simulate(plan, out=out, on_round=fail)
    assert {path.name for path in out.iterdir()} >= {"ledgers", "rounds", "plan.toml"}


PATIENTS, PER_PATIENT = 80, 3


@pytest.fixture
def ward(plan: Plan, tmp_path: Path) -> Callable[..., Plan]:
    """A plan over one file in which 80 patients have three records each, of both classes."""
    rng = np.random.default_rng(3)
    rows = ["patient,age,dose,mass,outcome"]
    for number in range(PATIENTS * PER_PATIENT):
        values = ",".join(f"{v:.4f}" for v in rng.uniform(-1, 1, 3))
        rows.append(f"p{number % PATIENTS},{values},{int(number % 3 == 0)}")
    (tmp_path / "ward.csv").write_text("\n".join(rows))
    text = SITE.format(name="ward", asset="ward", file="ward.csv", public="true")
    text = text.replace("test_share = 0.3", 'unit = "patient"\ntest_share = 0.1')
    (tmp_path / "ward.toml").write_text(text)

    def make(unit: str, split: str, *sizes: int) -> Plan:
        simulation = Simulation(
            dataset="files", files=str(tmp_path / "ward.toml"), split=split, seed=1
        )
        return replace(
            plan,
            sites=tuple(
                replace(site, public_records=size)
                for site, size in zip(plan.sites, sizes, strict=True)
            ),
            simulation=simulation,
            privacy=replace(plan.privacy, unit=unit),
            calibration=Calibration(held_out=0.3),
        )

    return make


@pytest.mark.parametrize("split", ["iid", "dirichlet:0.3"])
@pytest.mark.parametrize(("unit", "sizes"), [("patient", (40, 35)), ("record", (110, 100))])
def test_a_patient_is_dealt_whole_to_one_part_of_one_site(
    ward: Callable[..., Plan], unit: str, sizes: tuple[int, int], split: str
) -> None:
    plan = ward(unit, split, *sizes)
    found = split_records(plan)
    require_fit(plan, found)  # no site is above its public size, whatever that counts
    seen: list[str] = []
    for data in found.by_site.values():
        parts = ("train", "test", "calibration")
        for part in parts:
            owners = getattr(data, f"{part}_units")
            assert len(owners) == len(getattr(data, f"{part}_y"))
            names, counts = np.unique(owners, return_counts=True)
            assert set(counts) <= {PER_PATIENT}
            seen += names.tolist()
    assert len(seen) == len(set(seen))
    assert len(seen) * PER_PATIENT + len(found.test) == PATIENTS * PER_PATIENT
    assert any(len(data.test_y) for data in found.by_site.values())


def test_patients_that_fit_nowhere_are_said_to(ward: Callable[..., Plan]) -> None:
    with pytest.raises(InvalidInput, match="roster is too small"):
        split_records(ward("patient", "iid", 4, 3))


def test_equal_records_are_all_in_one_part_of_a_site(plan: Plan, tmp_path: Path) -> None:
    """Texts that were sent to many are equal: one that trains must not be tested on, too."""
    write_site(tmp_path, "pool", count=90)
    lines = (tmp_path / "pool.csv").read_text().splitlines()
    (tmp_path / "pool.csv").write_text("\n".join([lines[0], *lines[1:] * 3]))
    dealt = replace(
        plan,
        sites=tuple(replace(site, public_records=270) for site in plan.sites),
        simulation=Simulation(dataset="files", files=str(tmp_path / "pool.toml"), split="iid"),
    )
    held = 0
    for data in split_records(dealt).by_site.values():
        train, test = ({row.tobytes() for row in x} for x in (data.train_x, data.test_x))
        assert not train & test
        held += len(data.test_y)
    assert held > 0


def test_records_that_all_differ_are_dealt_as_ever(plan: Plan, tmp_path: Path) -> None:
    """The stated results of the examples are of this very split."""
    write_site(tmp_path, "pool", count=50)
    dealt = replace(
        plan,
        simulation=Simulation(
            dataset="files", files=str(tmp_path / "pool.toml"), split="dirichlet:0.5", seed=4
        ),
    )
    file = SiteFile.load(tmp_path / "pool.toml")
    whole, rng = read(file, tmp_path / "pool.toml", dealt), np.random.default_rng([0xF11E, 4])
    parts = dirichlet(whole.train_y, [site.public_records for site in plan.sites], 0.5, rng)
    rng.permutation(0)
    for data, part in zip(split_records(dealt).by_site.values(), parts, strict=True):
        train, test = holdout(whole.train_y[part], 0.1, rng)
        np.testing.assert_array_equal(data.train_x, whole.train_x[part[train]])
        np.testing.assert_array_equal(data.test_x, whole.train_x[part[test]])


def one_file(plan: Plan, folder: Path, *, share: float, words: str) -> Plan:
    """A plan whose one site file says ``words`` in its policy."""
    write_site(folder, "records", count=80)
    path = folder / "records.toml"
    text = path.read_text().replace("public_test = true", words)
    path.write_text(text)
    simulation = Simulation(dataset="files", files=str(path), split="iid", public_share=share)
    return replace(plan, simulation=simulation)


def test_records_become_public_only_where_their_file_says_so(plan: Plan, tmp_path: Path) -> None:
    """A share of them, and exact figures of the test part beside the small model."""
    closed = one_file(plan, tmp_path, share=0.3, words="public_test = true")
    with pytest.raises(Refused, match="open data"):
        split_records(closed)
    hidden = one_file(plan, tmp_path, share=0.0, words="public_test = false")
    with pytest.raises(Refused, match="test part public"):
        split_records(hidden)
    none = replace(hidden, edge=replace(hidden.edge, student="none"))
    assert split_records(none).public is None
    words = "public_test = true\nopen_data = true"
    assert split_records(one_file(plan, tmp_path, share=0.3, words=words)).public is not None

"""The engine under faults: seeds by the hundred, and single faults whose outcome is known."""

import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from collegium.simulations.lies import HELLO_LIES, REPORT_LIES
from collegium.simulations.nemesis import Stage, play
from collegium.simulations.nemesis_check import breaks
from collegium.simulations.nemesis_scenario import BOUNDARIES, Rates, Scenario, scenario

SEEDS = 200


def calm(**changes: Any) -> Scenario:
    """Four sites, three rounds, quorum 0.75, and no fault but those that are asked for."""
    seed = next(
        seed
        for seed in range(10_000)
        if len((plan := scenario(seed).plan).sites) == 4
        and (plan.rounds.count, plan.rounds.quorum) == (3, 0.75)
    )
    drawn = scenario(seed)
    return Scenario(seed=seed, plan=drawn.plan, size=8, fresh_noise=False, **changes)


def models(stage: Stage) -> list[str]:
    return [release.model_sha256 for release in stage.histories[-1]]


def ends(stage: Stage) -> list[str]:
    return [end for end, _ in stage.ends]


def events(stage: Stage, kind: str) -> list[str]:
    return [line for line in stage.world.log if line.split(" ")[1] == kind]


@pytest.fixture(scope="module")
def undisturbed() -> Stage:
    stage = play(0, case=calm())
    assert (breaks(stage), ends(stage)) == ([], ["complete"])
    assert all(len(release.sites) == 4 for release in stage.histories[-1])
    return stage


@pytest.mark.parametrize("first", range(0, SEEDS, 40))
def test_no_invariant_breaks(first: int) -> None:
    faults: set[str] = set()
    for seed in range(first, first + 40):
        stage = play(seed)
        assert breaks(stage) == [], seed
        faults |= set(stage.world.injected)
    assert len(faults) > 15  # and these seeds are no calm ones


CHILD = """
import sys
from collegium.simulations.nemesis import play
assert not {"flwr", "torch"} & set(sys.modules)
print(*(play(seed).world.digest for seed in range(12)))
"""


def test_a_seed_replays_exactly_in_another_process() -> None:
    here = [play(seed).world.digest for seed in range(12)]
    assert len(set(here)) == 12
    child = subprocess.run(
        [sys.executable, "-c", CHILD],
        env={**os.environ, "PYTHONHASHSEED": "11"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout.split() == here


@pytest.mark.parametrize("kind", BOUNDARIES)
def test_a_crash_at_each_boundary(undisturbed: Stage, kind: str) -> None:
    """The same models as without it; every boundary that a calm run passes is one to die at."""
    stage = play(0, case=calm(crashes_in=frozenset({(kind, 2)})))
    rare = {"event gone", "event lost", "event late", "event restored", "event stopped"}
    crashed = stage.world.injected["coordinator crash"]
    assert crashed == (0 if kind in rare else 1)
    assert breaks(stage) == []
    assert models(stage) == models(undisturbed)


def test_a_crash_of_a_site_at_each_action(undisturbed: Stage) -> None:
    actions = undisturbed.world.site_actions
    assert actions > 4 * 3 * 5
    for number in range(1, actions + 1):
        stage = play(0, case=calm(site_crashes=frozenset({number})))
        assert stage.world.injected["site crash"] == 1
        assert breaks(stage) == []
        assert models(stage) == models(undisturbed), number


@pytest.mark.parametrize("jump", [600.0, -600.0])
@pytest.mark.parametrize("when", [0.2, 1.4, 4.0])
def test_a_clock_that_jumps(undisturbed: Stage, jump: float, when: float) -> None:
    """Ten minutes on or back neither close a round nor hang it, and no site is late."""
    stage = play(0, case=calm(clock_jumps=((when, jump),)))
    assert breaks(stage) == []
    assert ends(stage) == ["complete"]
    assert models(stage) == models(undisturbed)
    assert stage.ends[0][1] < 60


def test_a_site_whose_clock_is_wrong_is_named_and_the_round_goes_on() -> None:
    """Ten minutes ahead: every deadline is over for it, and after a few renewals that stands."""
    stage = play(0, case=calm(skews=(("s1", 600.0),)))
    assert breaks(stage) == []
    assert [release.refused for release in stage.histories[-1]] == [(("s1", "deadline"),)] * 3
    assert stage.ends[0][1] < 60


def test_a_node_that_changes_its_id(undisturbed: Stage) -> None:
    """A restarted SuperNode: the site is met again and its round is not lost."""
    renames = (("s1", 1.5), ("s1", 5.0), ("s2", 5.1))
    stage = play(0, case=calm(renames=renames))
    assert breaks(stage) == []
    assert models(stage) == models(undisturbed)
    assert len(events(stage, "seen")) > 4


def test_errors_that_the_post_makes_are_asked_again(undisturbed: Stage) -> None:
    stage = play(0, case=calm(rates=Rates(error_made=0.4)))
    assert events(stage, "lost")
    assert breaks(stage) == []
    assert models(stage) == models(undisturbed)
    assert not any('"code":"error"' in line for line in events(stage, "answered"))


def test_a_cut_of_five_seconds_costs_nothing(undisturbed: Stage) -> None:
    stage = play(0, case=calm(cuts=(("s0", 2.0, 7.0),), post_down=((3.0, 6.0),)))
    assert breaks(stage) == []
    assert models(stage) == models(undisturbed)


def test_a_site_that_is_cut_off_is_named_late() -> None:
    stage = play(0, case=calm(cuts=(("s3", 2.0, 150.0),)))
    assert breaks(stage) == []
    assert stage.histories[-1][-1].late == ("s3",)
    assert events(stage, "late")
    assert events(stage, "gone")


def test_a_full_disk_stops_and_goes_on(undisturbed: Stage) -> None:
    stage = play(0, case=calm(disk_full=((1.0, 15.0),)))
    assert any(end.startswith("disk") for end in ends(stage))
    assert (breaks(stage), ends(stage)[-1]) == ([], "complete")
    assert models(stage) == models(undisturbed)


def test_a_rotten_checkpoint_is_made_again(undisturbed: Stage) -> None:
    rotten = 0
    for number in range(2, 5):
        for kind in ("after row", "remove", "event round"):
            crash = (kind, number - (kind != "after row"))
            stage = play(0, case=calm(crashes_in=frozenset({crash}), disk_rots=True))
            rotten += stage.world.injected["rotten checkpoint"]
            assert len(events(stage, "restored")) == stage.world.injected["rotten checkpoint"]
            assert breaks(stage) == []
            assert models(stage) == models(undisturbed)
    assert rotten > 2


def test_half_of_the_sites_flapping() -> None:
    """F21: they come and go all the time; every run ends and nothing is counted twice."""
    cuts = tuple(
        (name, 6.0 * number + shift, 6.0 * number + shift + 3.5)
        for name, shift in (("s0", 0.0), ("s1", 2.0))
        for number in range(30)
    )
    for seed in range(40):
        case = replace(calm(cuts=cuts, rates=Rates(late=0.2, twice=0.2)), seed=seed)
        stage = play(seed, case=case)
        assert (breaks(stage), ends(stage)[-1]) == ([], "complete"), seed


def test_every_lie_is_refused_by_its_name() -> None:
    from collegium.simulations.lies import SEALED_LIES

    for name, (_, code) in SEALED_LIES.items():
        stage = play(0, case=calm(liars=(("s1", name),)))
        assert breaks(stage) == []
        assert {release.refused for release in stage.histories[-1]} == {(("s1", code),)}, name


@pytest.mark.parametrize("name", sorted(HELLO_LIES))
def test_a_lie_in_a_hello_costs_the_liar_a_pause(undisturbed: Stage, name: str) -> None:
    """Told in every second hello: the site is met at the next one, and nothing else changes."""
    stage = play(0, case=calm(talkers=(("s1", f"hello {name}"),)))
    assert stage.world.injected["lie in a hello"] > 0
    assert (breaks(stage), ends(stage)) == ([], ["complete"])
    assert models(stage) == models(undisturbed)


@pytest.mark.parametrize("name", sorted(REPORT_LIES))
def test_a_lie_in_a_report_costs_the_report(undisturbed: Stage, name: str) -> None:
    stage = play(0, case=calm(talkers=(("s1", f"report {name}"),)))
    assert stage.world.injected["lie in a report"] > 0
    assert (breaks(stage), ends(stage)) == ([], ["complete"])
    assert models(stage) == models(undisturbed)
    assert sorted(stage.reports) == ["s0", "s2", "s3"]

"""Every broken build is caught, by the test that is meant for it; the correct one is not."""

from pathlib import Path

import pytest

from collegium.client.site import Site
from collegium.privacy import conformance_insertion as insertion
from collegium.privacy import conformance_noise as noise
from collegium.privacy import conformance_statistics as tests
from collegium.privacy import step
from collegium.privacy.ledger import Ledger
from collegium.privacy.noise import NoiseStream, SeededNoise
from collegium.simulations.audit_build import COMMITTED, UPDATES
from collegium.simulations.mutants import MUTANTS, audited

MEANT = {
    "noise omitted": noise.NOISE,
    "noise halved": noise.NOISE,
    "noise x 0.9": noise.NOISE,
    "Rademacher noise": noise.NOISE_LAW,
    "uniform noise": noise.NOISE_LAW,
    "half without noise": noise.NOISE_GAPS,
    "first tenth without noise": noise.NOISE_GAPS,
    "one tensor without noise": noise.NOISE_GAPS,
    "clipping skipped": insertion.SENSITIVITY,
    "clipping doubled": insertion.SENSITIVITY,
    "clipping per tensor": insertion.SENSITIVITY,
    "noise of a mean on a sum": noise.NOISE,
    "mean before noise": insertion.AGREEMENT,
    "divisor from the data": insertion.DIVISOR,
    "noise once per round": noise.NOISE_STEPS,
    "one noise for a round": tests.CORRELATION,
    "same seed across sites": tests.SITES,
    "shuffled sampler": tests.BATCH_SPREAD,
    "sampling rate x 1.5": tests.BATCHES,
    "buffers released": UPDATES,
    "answered twice": COMMITTED,
    "answered twice, first kept": COMMITTED,
    "update without a reserve": COMMITTED,
}


def test_every_mutant_has_a_test_that_is_meant_for_it() -> None:
    assert set(MEANT) == set(MUTANTS)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_build_is_caught(mutant: str, tmp_path: Path) -> None:
    values = audited(tmp_path / "run", seed=5, mutant=mutant)
    assert not values["passed"]
    assert MEANT[mutant] in {row["name"] for row in values["tests"] if row["verdict"] == "failed"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_the_correct_build_is_not_flagged(seed: int, tmp_path: Path) -> None:
    values = audited(tmp_path / "run", seed=seed)
    assert values["passed"], [row for row in values["tests"] if row["verdict"] == "failed"]


def test_a_mutant_ends_with_its_context() -> None:
    from collegium.client import train

    kept = (
        NoiseStream.normal, SeededNoise.stream, step.sample, train.private_gradient,
        train.Trainer.__init__, train.Trainer.train, train.Trainer.__dict__["open_vector"],
        Site.train, Site.__dict__["_stored"], Ledger.reserve, Ledger.commit,
    )  # fmt: skip
    for mutant in MUTANTS.values():
        with pytest.raises(RuntimeError), mutant():
            raise RuntimeError
    assert kept == (
        NoiseStream.normal, SeededNoise.stream, step.sample, train.private_gradient,
        train.Trainer.__init__, train.Trainer.train, train.Trainer.__dict__["open_vector"],
        Site.train, Site.__dict__["_stored"], Ledger.reserve, Ledger.commit,
    )  # fmt: skip


def test_no_run_imports_a_mutant() -> None:
    """Broken builds are reached by tests and benchmarks alone."""
    root = Path(__file__).resolve().parents[2]
    for folder in ("cli", "client", "server", "simulations", "privacy"):
        for path in (root / folder).glob("*.py"):
            assert path.name == "mutants.py" or "mutants import" not in path.read_text("utf-8")


def test_released_buffers_are_seen_in_what_left(tmp_path: Path) -> None:
    values = audited(tmp_path / "run", seed=0, mutant="buffers released")
    rows = [row for row in values["tests"] if row["name"] == UPDATES]
    assert {row["verdict"] for row in rows} == {"failed"}, rows

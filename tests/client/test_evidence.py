"""What a site keeps of its steps: complete, private, and right about the update."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collegium.client.evidence import SKETCH, TRACKED, Evidence, read_evidence
from collegium.core.codec import codec, codec_names
from collegium.core.digest import sha256_hex
from collegium.core.errors import InvalidInput, MissingInput
from collegium.core.mechanism import MechanismSpec
from collegium.privacy.conformance_records import EDGES

KEY = ("job", 1, 1)
SPEC = MechanismSpec(
    unit="record", relation="add-or-remove-one", clip_norm=0.5, noise_multiplier=2.0,
    sampler="poisson", sampling_rate=0.25, public_records=100, normaliser=25.0, steps=2,
    batch_cap=0, delta=1e-5, trainable_digest="sha256:t",
)  # fmt: skip
Write = Callable[..., dict[str, Any]]


def write(
    evidence: Evidence,
    *,
    seed: int = 0,
    size: int = 1000,
    units: int = 40,
    rate: float = 0.7,
    spec: MechanismSpec = SPEC,
    key: tuple[str, int, int] = KEY,
    steps: int = 2,
    end: bool = True,
) -> dict[str, Any]:
    """One attempt as a site writes it; returns what was drawn."""
    rng = np.random.default_rng(seed)
    job, round, attempt = key
    evidence.begin(job=job, round=round, attempt=attempt)
    moved, noises, batches = np.zeros(size), [], []
    for step in range(steps):
        clean, noise = rng.standard_normal(size), rng.standard_normal(size)
        batch = np.flatnonzero(rng.random(units) < spec.sampling_rate)
        noisy = clean + noise * spec.noise_std
        evidence.observe(spec, step=step, units=units, batch=batch, clean=clean, noisy=noisy)
        moved -= rate * (noisy / spec.normaliser)
        noises.append(noise)
        batches.append(batch)
    if end:
        evidence.end(moved.astype(np.float32))
    return {"noises": noises, "batches": batches, "vector": moved.astype(np.float32)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file in a folder that is not there yet."""
    return tmp_path / "site" / "evidence.jsonl"


def test_a_step_is_kept_as_it_was(path: Path) -> None:
    drawn = write(Evidence(path))
    attempt = read_evidence(path)[KEY]
    assert attempt.spec == SPEC
    assert sorted(attempt.steps) == [0, 1]
    for number, step in attempt.steps.items():
        z = drawn["noises"][number]
        assert step.size == 1000
        assert step.squares == pytest.approx(float(z @ z), rel=1e-12)
        chosen = np.linspace(0, 999, SKETCH).astype(int)
        np.testing.assert_allclose(step.sketch, z[chosen], rtol=1e-6)
        assert (step.units, step.batch) == (40, len(drawn["batches"][number]))
        np.testing.assert_array_equal(np.flatnonzero(step.included), drawn["batches"][number])
    assert attempt.ended
    assert attempt.rate == pytest.approx(0.7, rel=1e-7)
    assert attempt.residual is not None
    assert attempt.residual < 1e-6
    assert attempt.size == 1000
    assert attempt.payloads == {
        name: sha256_hex(codec(name).encode(drawn["vector"])) for name in codec_names()
    }
    assert attempt.payloads["float32"] == sha256_hex(drawn["vector"].tobytes())


@pytest.mark.skipif(os.name == "nt", reason="no POSIX modes")
def test_only_the_site_may_read_it(path: Path) -> None:
    write(Evidence(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_update_that_is_another_one(path: Path) -> None:
    """Another coordinate, another scale, another length: each shows."""
    evidence = Evidence(path)
    good = write(evidence, end=False)["vector"]
    wrong = good.copy()
    wrong[7] += 0.01 * np.abs(good).max()
    evidence.end(wrong)
    found = read_evidence(path)[KEY]
    assert found.residual is not None
    assert found.residual > 1e-3
    write(evidence, end=False)
    evidence.end(2 * good)
    assert read_evidence(path)[KEY].rate == pytest.approx(1.4)
    write(evidence, end=False)
    evidence.end(np.append(good, np.float32(0)))
    found = read_evidence(path)[KEY]
    assert (found.size, found.residual) == (1001, 1.0)
    write(evidence, end=False)
    evidence.end(np.zeros_like(good))
    assert read_evidence(path)[KEY].rate == 0.0


def test_a_later_try_supersedes_the_earlier_one(path: Path) -> None:
    write(Evidence(path), steps=1, end=False)
    drawn = write(Evidence(path), seed=1)
    write(Evidence(path), key=("job", 2, 1), seed=2)
    found = read_evidence(path)
    assert sorted(found) == [KEY, ("job", 2, 1)]
    z = drawn["noises"][0]
    assert found[KEY].steps[0].squares == pytest.approx(float(z @ z))
    write(Evidence(path), steps=1, end=False, seed=3)
    again = read_evidence(path)[KEY]
    assert not again.ended  # the old update is gone with its steps
    assert sorted(again.steps) == [0]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_line_that_a_kill_tore(path: Path, kept: float) -> None:
    """Whatever is left of the last line, the re-run is read whole."""
    write(Evidence(path), key=("job", 1, 1))
    whole = path.read_bytes()
    write(Evidence(path), key=("job", 2, 1), seed=1)
    added = path.read_bytes()[len(whole) :]
    path.write_bytes(whole + added[: int(len(added) * kept)])
    partly = read_evidence(path)
    assert partly[KEY].ended
    assert not partly.get(("job", 2, 1)) or not partly["job", 2, 1].ended
    write(Evidence(path), key=("job", 2, 1), seed=1)
    again = read_evidence(path)
    assert again["job", 2, 1].ended
    assert sorted(again["job", 2, 1].steps) == [0, 1]


def test_without_noise_nothing_is_kept(path: Path) -> None:
    from dataclasses import replace

    evidence = Evidence(path)
    evidence.begin(job="job", round=1, attempt=1)
    quiet = replace(SPEC, noise_multiplier=0.0)
    zeros = np.zeros(3)
    evidence.observe(quiet, step=0, units=2, batch=np.array([0]), clean=zeros, noisy=zeros)
    evidence.end(zeros.astype(np.float32))
    assert not path.exists()
    with pytest.raises(MissingInput, match="no-privacy"):
        read_evidence(path)


def test_of_many_units_the_first_are_tracked(path: Path) -> None:
    drawn = write(Evidence(path), units=TRACKED + 999)
    step = read_evidence(path)[KEY].steps[0]
    assert (step.units, step.batch) == (TRACKED + 999, len(drawn["batches"][0]))
    first = drawn["batches"][0]
    np.testing.assert_array_equal(np.flatnonzero(step.included), first[first < TRACKED])
    assert len(step.included) == TRACKED


@pytest.mark.parametrize(
    ("sizes", "kept"),
    [(None, [1000]), ((900, 0, 100), [900, 100]), ((1000,), [1000]), ((900, 99), [1000])],
)
def test_what_is_kept_of_the_noise_law(path: Path, sizes: Any, kept: list[int]) -> None:
    drawn = write(Evidence(path, sizes=sizes))
    for number, step in read_evidence(path)[KEY].steps.items():
        z = drawn["noises"][number]
        parts = np.split(z, np.cumsum(kept)[:-1])
        assert step.tensor_sizes == tuple(kept)
        assert step.tensor_squares == pytest.approx([float(part @ part) for part in parts])
        bins = np.histogram(np.abs(z), [0, *EDGES, np.inf])[0]
        assert step.bins == tuple(bins.tolist())
        assert (step.negative, step.zeros) == (int((z < 0).sum()), 0)


def test_the_codec_can_be_named(path: Path) -> None:
    evidence = Evidence(path)
    vector = write(evidence, end=False)["vector"]
    evidence.end(vector, codec="bf16")
    payloads = read_evidence(path)[KEY].payloads
    assert payloads == {"bf16": sha256_hex(codec("bf16").encode(vector))}


def test_coordinates_without_noise_are_counted(path: Path) -> None:
    evidence, clean = Evidence(path), np.random.default_rng(0).standard_normal(50)
    evidence.begin(job="job", round=1, attempt=1)
    noisy = clean + SPEC.noise_std * (np.arange(50) >= 7)
    nothing = np.zeros(0, dtype=np.intp)
    evidence.observe(SPEC, step=0, units=0, batch=nothing, clean=clean, noisy=noisy)
    step = read_evidence(path)[KEY].steps[0]
    assert (step.zeros, step.negative, step.bins[0]) == (7, 0, 7)


@pytest.mark.parametrize("size", [1, 5, 255, 256, 257])
def test_small_vectors_and_empty_sites(path: Path, size: int) -> None:
    drawn = write(Evidence(path), size=size, units=0)
    step = read_evidence(path)[KEY].steps[1]
    assert len(step.sketch) == min(size, SKETCH)
    assert (step.units, step.batch, len(step.included)) == (0, 0, 0)
    z = drawn["noises"][1]
    assert step.sketch[0] == np.float32(z[0])
    assert step.sketch[-1] == pytest.approx(z[-1], rel=1e-6)


def test_a_file_that_is_something_else(path: Path) -> None:
    write(Evidence(path))
    path.write_text(path.read_text() + json.dumps({"kind": "other"}) + "\n")
    with pytest.raises(InvalidInput, match="not evidence"):
        read_evidence(path)
    path.write_text('{"job": "j", "round": 1, "attempt": 1, "kind": "step", "step": 0}\n')
    with pytest.raises(InvalidInput, match="not evidence"):
        read_evidence(path)
    path.write_text('[1, 2]\n"text"\n')
    with pytest.raises(InvalidInput, match="not evidence"):
        read_evidence(path)


def test_a_site_writes_what_it_did(make_counter: Any) -> None:
    """The real site: both its steps, the update that left, and nothing when it repeats itself."""
    counter = make_counter()
    reply = counter.site.train(counter.ask())
    assert counter.code(reply) == "ok"
    path = counter.lab.folder / "sites" / "s0" / "evidence.jsonl"
    (attempt,) = read_evidence(path).values()
    assert attempt.spec == counter.site.spec
    assert sorted(attempt.steps) == list(range(counter.site.spec.steps))
    assert attempt.rate == pytest.approx(counter.lab.plan.rounds.local_learning_rate)
    before = path.read_bytes()
    assert counter.site.train(counter.ask()).payload == reply.payload
    assert path.read_bytes() == before

"""The noise's law, its independence from every global seed, and its known answer."""

import random

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from scipy.stats import kstest

from collegium.privacy.noise import NoiseStream, SeededNoise, SystemNoise

KEYS = [bytes([number]) * 32 for number in (0, 1, 7)]
BIG = 200_000


def stream(key: bytes = KEYS[0]) -> NoiseStream:
    """A stream with a fixed key: these tests always see the same numbers."""
    return NoiseStream(key, reproducible=True)


@pytest.mark.parametrize("key", KEYS)
def test_moments_and_law(key: bytes) -> None:
    normal = stream(key).normal(BIG)
    uniform = stream(key).uniform(BIG)
    assert abs(normal.mean()) < 4 / BIG**0.5
    assert abs(normal.var() - 1) < 4 * (2 / BIG) ** 0.5
    assert abs((normal**3).mean()) < 4 * (15 / BIG) ** 0.5
    assert abs((normal**4).mean() - 3) < 4 * (96 / BIG) ** 0.5
    assert kstest(normal, "norm").pvalue > 1e-3
    assert kstest(uniform, "uniform").pvalue > 1e-3
    half = BIG // 2  # cosines and sines of the same radii are uncorrelated, and so are squares
    assert abs(np.corrcoef(normal[:half], normal[half:])[0, 1]) < 4 / half**0.5
    assert abs(np.corrcoef(normal[:half] ** 2, normal[half:] ** 2)[0, 1]) < 4 / half**0.5
    assert abs(np.corrcoef(normal[:-1], normal[1:])[0, 1]) < 4 / BIG**0.5


def test_uniforms_are_never_zero_so_that_logarithms_exist() -> None:
    """The smallest word gives 2**-53 and the largest exactly 1."""

    class Words:
        def __init__(self, word: int) -> None:
            self.word = word

        def update(self, data: bytes) -> bytes:
            return self.word.to_bytes(8, "little") * (len(data) // 8)

    for word, expected in ((0, 2.0**-53), (2**64 - 1, 1.0)):
        fixed = stream()
        fixed._encryptor = Words(word)  # type: ignore[assignment]
        assert set(fixed.uniform(3)) == {expected}
        assert np.isfinite(fixed.normal(3)).all()


def test_known_answer_of_the_keystream() -> None:
    """AES-256-CTR of zeros under SHA-256 of the label, read as 53-bit uniforms."""
    import hashlib

    label = b"collegium/simulation-noise/1|7|north|3|1"
    key = hashlib.sha256(label).digest()
    words = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(24))
    expected = [
        ((int.from_bytes(words[at : at + 8], "little") >> 11) + 1) / 2**53 for at in (0, 8, 16)
    ]
    found = SeededNoise(7).stream(site="north", round=3, step=1).uniform(3)
    assert found.tolist() == expected


def test_frozen_numbers() -> None:
    """A resumed run of another build must draw these again."""
    found = SeededNoise(7).stream(site="north", round=3, step=1).normal(3)
    np.testing.assert_allclose(found, FROZEN, rtol=1e-12)


def test_seeded_streams_differ_by_seed_site_round_attempt_and_step() -> None:
    labels = [
        (seed, site, round, step, attempt)
        for seed in (1, 2)
        for site in ("a", "b")
        for round in (1, 2, 11)
        for step in (0, 1)
        for attempt in (1, 2)
    ]
    draws = {
        label: SeededNoise(label[0])
        .stream(site=label[1], round=label[2], step=label[3], attempt=label[4])
        .normal(5_000)
        for label in labels
    }
    table = np.corrcoef(np.stack(list(draws.values())))
    np.fill_diagonal(table, 0)
    assert np.abs(table).max() < 5 / 5_000**0.5
    again = SeededNoise(1).stream(site="a", round=1, step=0).normal(5_000)
    np.testing.assert_array_equal(again, draws[1, "a", 1, 0, 1])


def test_real_noise_is_not_touched_by_any_global_seed() -> None:
    """Opacus and Flower use seedable generators: whoever sets the seed subtracts the noise."""
    draws: list[np.ndarray] = []
    for _ in range(2):
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        draws.append(SystemNoise().stream(site="a", round=1, step=0).normal(10_000))
    assert abs(np.corrcoef(*draws)[0, 1]) < 4 / 10_000**0.5


def test_real_noise_reads_the_operating_system_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def urandom(count: int) -> bytes:
        asked.append(count)
        return bytes(count)

    monkeypatch.setattr("os.urandom", urandom)
    found = SystemNoise().stream(site="a", round=1, step=0).normal(4)
    np.testing.assert_array_equal(found, stream(bytes(32)).normal(4))
    assert asked == [32]


def test_only_seeded_noise_taints() -> None:
    seeded, real = SeededNoise(0), SystemNoise()
    assert seeded.reproducible
    assert seeded.stream(site="a", round=1, step=0).reproducible
    assert not real.reproducible
    assert not real.stream(site="a", round=1, step=0).reproducible


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1001])
def test_any_count(count: int) -> None:
    assert stream().normal(count).shape == (count,)
    assert stream().uniform(count).shape == (count,)


@pytest.mark.parametrize("key", [b"", b"short", bytes(31), bytes(33)])
def test_key_length(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        NoiseStream(key, reproducible=True)


def test_a_stream_never_repeats_itself() -> None:
    one = stream()
    first, second = one.normal(1000), one.normal(1000)
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / 1000**0.5


def test_no_other_room_draws_noise() -> None:
    """In rooms that touch records, what protects comes from privacy/noise.py alone.

    Others draw where no record is near, each from a generator of its own: made-up records
    (layer_check, probe, conformance_insertion), an attack's coins (leakage); device_noise is
    seeded by a stream.
    """
    from pathlib import Path

    import collegium

    root = Path(collegium.__file__).parent
    banned = ("np.random", "torch.randn", "torch.rand", "import random", "manual_seed")
    found = [
        f"{path.parent.name}/{path.name}: {word}"
        for room in ("privacy", "client", "strategies", "server")
        for path in (root / room).glob("*.py")
        if path.name not in DRAWS_APART
        for word in banned
        if word in path.read_text("utf-8")
    ]
    assert found == []


DRAWS_APART = {
    "layer_check.py", "probe.py", "conformance_insertion.py", "leakage.py", "device_noise.py",
}  # fmt: skip
FROZEN = [2.7508938537616734, -0.3212153766459861, -1.0186993335229095]

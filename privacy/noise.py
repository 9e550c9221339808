"""The only place where randomness that protects a record is drawn.

A stream is AES-256 in counter mode; its key comes from the operating system (real noise) or
from a simulation's seed (reproducible, therefore no guarantee). Normals are Box-Muller in
float64. Floating-point Gaussians are open to Mironov-type attacks (CCS 2012) in theory; the
privacy statement says so.
"""

from __future__ import annotations

import hashlib
import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class NoiseStream:
    """A keystream of uniforms and standard normals; use one stream per step and site."""

    def __init__(self, key: bytes, *, reproducible: bool) -> None:
        if len(key) != 32:
            raise ValueError("an AES-256 key has 32 bytes")
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self.reproducible = reproducible

    def uniform(self, count: int) -> Floats:
        """Return (count,) uniforms in (0, 1], 53 bits each."""
        words = np.frombuffer(self._encryptor.update(bytes(8 * count)), dtype="<u8")
        return ((words >> np.uint64(11)) + np.uint64(1)).astype(np.float64) * 2.0**-53

    def seed(self) -> int:
        """Return 64 bits of the stream for another generator, as a signed integer."""
        return int.from_bytes(self._encryptor.update(bytes(8)), "little", signed=True)

    def normal(self, count: int) -> Floats:
        """Return (count,) independent standard normals (Box & Muller 1958)."""
        half = (count + 1) // 2
        radius = np.sqrt(-2.0 * np.log(self.uniform(half)))
        angle = 2.0 * np.pi * self.uniform(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]


class SystemNoise:
    """Streams keyed by the operating system's generator: what a real site uses."""

    reproducible = False
    name = "AES-256-CTR keyed by the operating system"

    def stream(self, *, site: str, round: int, step: int, attempt: int = 1) -> NoiseStream:
        """Return a fresh stream; nothing about it can be foreseen or repeated."""
        del site, round, step, attempt
        return NoiseStream(os.urandom(32), reproducible=False)


class SeededNoise:
    """Streams that a seed determines: simulation only, and every output says so.

    stream = f(seed, site, round, attempt, step): a resumed round repeats the same draw on the
    same batch, a new attempt (another base model) draws anew, and two sites never share noise.
    """

    reproducible = True
    name = "AES-256-CTR keyed by the simulation's seed: no privacy guarantee"

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def stream(self, *, site: str, round: int, step: int, attempt: int = 1) -> NoiseStream:
        """Return the stream of one site, round, attempt and step."""
        again = f"|attempt {attempt}" if attempt > 1 else ""
        label = f"collegium/simulation-noise/1|{self._seed}|{site}|{round}|{step}{again}"
        return NoiseStream(hashlib.sha256(label.encode()).digest(), reproducible=True)


NoiseSource = SystemNoise | SeededNoise

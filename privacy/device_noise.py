"""Noise for very large vectors on a GPU: the device's own generator, seeded anew for each step."""

from __future__ import annotations

import torch

from .noise import Floats, NoiseStream

LARGE = 10_000_000
"""Coordinates from which AES on the processor would cost more than the step itself (0.25 s)."""


def draws_on_device(count: int, device: torch.device) -> bool:
    """Return whether noise of that size is drawn on that device; the statement says so."""
    return device.type != "cpu" and count >= LARGE


def normals(stream: NoiseStream, count: int, device: torch.device) -> Floats:
    """Return (count,) standard normals for one step, from the stream or, seeded by it, the device.

    The device's Philox is no cryptographic generator: 64 bits of the stream are its whole key.
    It is a generator of its own, so that no global seed repeats it.
    """
    if not draws_on_device(count, device):
        return stream.normal(count)
    return device_normals(stream, count, device)


def device_normals(stream: NoiseStream, count: int, device: torch.device) -> Floats:
    """Return (count,) standard normals in float64 from the device's generator."""
    generator = torch.Generator(device).manual_seed(stream.seed())
    drawn = torch.randn(count, generator=generator, device=device, dtype=torch.float64)
    return drawn.cpu().numpy()

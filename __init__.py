"""Collegium: federated learning that a data-protection officer can sign."""

from __future__ import annotations

__version__ = "0.1.0"

"""Who a site is, and whom it listens to."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a site is and whom it listens to: its own key, the coordinator's public key."""

    name: str
    key: Ed25519PrivateKey
    coordinator: Ed25519PublicKey

"""A bundle that lies in a home, checked against what the home trusts and remembers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from .envelope import read_key, signed_payload
from .errors import DeviceError
from .names import SIGNATURE_FILE
from .predicting import Verified
from .store import Installed, Settings, State, Store
from .verify import verify_bundle


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom this device believes, and what it takes from them."""

    keys: tuple[Ed25519PublicKey, ...]
    threshold: int
    revoked: tuple[str, ...]
    allow_simulated: bool
    expired: str

    def payload(self, envelope: bytes, name: str) -> bytes:
        """Return what enough trusted keys signed; raises ``DeviceError`` BAD SIGNATURE."""
        return signed_payload(envelope, self.keys, self.threshold, revoked=self.revoked, name=name)

    def options(self) -> dict[str, Any]:
        """Return the keywords with which ``verify_bundle`` trusts as this device does."""
        return {
            "threshold": self.threshold,
            "revoked": self.revoked,
            "allow_simulated": self.allow_simulated,
            "expired": self.expired,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a pull or a rollback did; ``outcome`` is "updated", "current" or "went back".

    ``before`` is the version that ran until then, or None; ``words`` say it in one sentence.
    """

    outcome: str
    state: State
    before: int | None
    words: str


def trust_of(
    settings: Settings, *, allow_simulated: bool = False, allow_expired: bool = False
) -> Trust:
    """Return the trust that ``device.toml`` states, widened for one command."""
    return Trust(
        keys=tuple(read_key(key) for key in settings.keys),
        threshold=settings.threshold,
        revoked=settings.revoked,
        allow_simulated=settings.allow_simulated or allow_simulated,
        expired="warn" if allow_expired else settings.expired,
    )


def require_current(state: State, *, allow_withdrawn: bool = False) -> Installed:
    """Return what is installed; raises ``DeviceError`` MISSING (66) or WITHDRAWN (77)."""
    if state.current is None:
        raise DeviceError("MISSING", "this home holds no bundle yet; pull first", 66)
    gone = state.withdrawal(state.current.digest)
    if gone is not None and not allow_withdrawn:
        why = f"version {gone.version} was withdrawn by its publisher: {gone.reason}"
        raise DeviceError("WITHDRAWN", f"{why}; --allow-withdrawn uses it all the same")
    return state.current


def verify_installed(
    store: Store, state: State, installed: Installed, trust: Trust, clock: datetime | None = None
) -> Verified:
    """Check every byte of an installed bundle again, as if it had just arrived.

    Raises ``DeviceError``; HASH also where a correctly signed other bundle lies in its place.
    """
    folder = store.bundles / installed.folder
    if not (folder / SIGNATURE_FILE).is_file():
        raise DeviceError("FILE SET", "the installed bundle is not there any more")
    verified = verify_bundle(folder, trust.keys, now=state.now(clock), **trust.options())
    if verified.digest != installed.digest:
        raise DeviceError("HASH", "another bundle lies where the installed one was")
    return verified

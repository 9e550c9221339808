"""Back to the version before: by the operator's word, or because the publisher withdrew."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from .errors import DeviceError
from .installed import Moved, Trust, verify_installed
from .store import Installed, State, Store


def roll_back(store: Store, trust: Trust, clock: datetime | None = None) -> Moved:
    """Make the previous version current and never take the present one again.

    The floor stays: nothing older than what was ever taken comes in from outside. Raises
    ``DeviceError``: NO PREVIOUS (66), or why the previous version cannot run; then nothing
    changes.
    """
    with store.locked():
        state = store.state()
        current, previous = state.current, state.previous
        if current is None or previous is None:
            why = "no earlier version is kept here; a new version comes with a pull"
            raise DeviceError("NO PREVIOUS", why, 66)
        gone = state.withdrawal(previous.digest)
        if gone is not None:
            why = f"version {previous.version} was withdrawn by its publisher: {gone.reason}"
            raise DeviceError("WITHDRAWN", why)
        verify_installed(store, state, previous, trust, clock)
        refused = tuple(dict.fromkeys((*state.refused, current.digest)))
        state = store.save(replace(_back(state, previous), refused=refused))
        store.tidy(state)
    words = (
        f"version {previous.version} runs again; version {current.version} is set aside and no "
        f"pull takes it again; only a version above {state.floor} comes in"
    )
    return Moved(outcome="went back", state=state, before=current.version, words=words)


def leave_withdrawn(store: Store, state: State, trust: Trust, clock: datetime) -> State:
    """Go back from a withdrawn version if the one before may run; else return ``state`` as it is.

    The caller holds the lock.
    """
    previous = state.previous
    if previous is None or state.withdrawal(previous.digest) or previous.digest in state.refused:
        return state
    try:
        verify_installed(store, state, previous, trust, clock)
    except DeviceError:
        return state
    state = store.save(_back(state, previous))
    store.tidy(state)
    return state


def _back(state: State, previous: Installed) -> State:
    return replace(state, current=previous, previous=None)

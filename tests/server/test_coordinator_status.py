"""Where each site stands, read from events; keys compared whatever they are written in."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_ssh_public_key,
)

from collegium.server.coordinator_status import _key, site_state, status_of

STORY = [
    ({"kind": "seen", "site": "a"}, "waiting"),
    ({"kind": "seen", "site": "b"}, "waiting"),
    ({"kind": "invited", "sites": ["a"], "round": 1}, "training"),
    ({"kind": "answered", "site": "a", "round": 1, "code": "ok"}, "done"),
    ({"kind": "round", "round": 1}, "done"),
    ({"kind": "invited", "sites": ["a"], "round": 2}, "training"),
    ({"kind": "late", "site": "a", "round": 2}, "late"),
    ({"kind": "gone", "site": "a"}, "absent"),
    ({"kind": "seen", "site": "a"}, "waiting"),
    ({"kind": "answered", "site": "a", "round": 3, "code": "norm"}, "refused (norm)"),
]


@pytest.mark.parametrize("length", range(len(STORY) + 1))
def test_a_sites_state_follows_the_events(length: int) -> None:
    events: list[Any] = [event for event, _ in STORY[:length]]
    expected = STORY[length - 1][1] if length else "absent"
    if length == 2:
        assert site_state(events, "b") == "waiting"
    assert site_state(events, "a") == expected


def test_a_key_is_the_same_as_openssh_and_as_pem(make_federation: Any) -> None:
    site = make_federation().coordinator().roster.sites[0]
    text = site.supernode_key.encode()
    pem = load_ssh_public_key(text).public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert _key(text) == _key(pem) == _key(text + b" a-comment")
    assert _key(b"nonsense") == b"nonsense"


def test_the_status_of_a_new_coordinator(make_federation: Any) -> None:
    lab = make_federation()
    found = status_of(lab.coordinator())
    assert found["coordinator"] is None and found["jobs"] == []
    assert found["lab"] is True
    assert {site["connection"] for site in found["sites"]} == {"not known"}

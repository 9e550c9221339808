"""The shipped nginx configuration, in a real nginx, before a real SuperLink."""

import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from collegium.server.coordinator_flower import is_healthy
from collegium.server.coordinator_run import RunRequest, run_federation
from collegium.server.coordinator_service import Service, serving

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/bin")
TEMPLATE = Path(__file__).parents[2] / "deploy" / "coordinator" / "nginx.conf"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
    pytest.mark.skipif(not TEMPLATE.is_file(), reason="not a checkout"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Door:
    """A lab's coordinator that is up behind nginx."""

    lab: Any
    service: Service
    port: int
    run: Path

    def ask(self, head: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send one request as it stands, no client tidies its path; return status and the rest."""
        ca = self.lab.home / "coordinator/certs/ca.crt"
        context = ssl.create_default_context(cafile=str(ca))
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as stream,
        ):
            stream.sendall(head.replace("\n", "\r\n").encode() + body)
            answer = b""
            while part := stream.recv(65_536):
                answer += part
        return int(answer.split(b" ", 2)[1]), answer

    def post(self, path: str, body: bytes = b"", *, kind: str = "application/protobuf") -> int:
        """Post to a path, unchanged; return the status."""
        head = f"POST {path} HTTP/1.1\nHost: localhost\nConnection: close\n"
        head += f"Content-Type: {kind}\nContent-Length: {len(body)}\n\n"
        return self.ask(head, body)[0]

    def get(self, path: str, method: str = "GET") -> int:
        """Get a path, unchanged; return the status."""
        return self.ask(f"{method} {path} HTTP/1.1\nHost: localhost\nConnection: close\n\n")[0]

    def reached(self) -> list[str]:
        """Return the paths of all requests that came to the SuperLink."""
        time.sleep(0.3)  # its log is pumped
        lines = self.service.superlink.command.log.read_text().splitlines()
        return [line.split('"')[1].split()[1] for line in lines if "uvicorn.access" in line]


@pytest.fixture(scope="module")
def door(tmp_path_factory: Any, make_plan: Any, make_records: Any) -> Iterator[Door]:
    # a copy of the function-scoped builder's class: one coordinator serves all tests here
    import sys

    lab_class = next(
        module.FederationLab
        for name, module in list(sys.modules.items())
        if name.endswith("conftest") and hasattr(module, "FederationLab")
    )
    folder = tmp_path_factory.mktemp("door")
    plan = make_plan(sites=2, rounds=2)
    lab = lab_class(plan, folder, address=f"127.0.0.1:{free_port()}", records=make_records(plan))
    inner, outer, run = free_port(), free_port(), folder / "nginx"
    run.mkdir()
    with serving(lab.coordinator(), state=None, port=inner, say=print) as service:
        text = TEMPLATE.read_text()
        for word, value in (
            ("@LISTEN@", f"127.0.0.1:{outer}"),
            ("@PORT@", str(inner)),
            ("@DIR@", str(lab.home)),
            ("@RUN@", str(run)),
        ):
            assert word in text
            text = text.replace(word, value)
        (run / "nginx.conf").write_text(text)
        words = [str(NGINX), "-p", str(run), "-c", str(run / "nginx.conf"), "-g", "daemon off;"]
        nginx = subprocess.Popen(words)
        try:
            until = time.monotonic() + 20
            while not is_healthy(lab.home / "coordinator/certs/ca.crt", outer):
                assert nginx.poll() is None and time.monotonic() < until
                time.sleep(0.1)
            yield Door(lab, service, outer, run)
        finally:
            nginx.terminate()
            nginx.wait()
            lab.close()


def routes() -> list[tuple[str, str]]:
    """Every route of this Flower's SuperLink, so that a new one is tested too."""
    from fastapi.routing import APIRoute, iter_route_contexts
    from flwr.superlink.main import create_app

    found: list[tuple[str, str]] = []
    for context in iter_route_contexts(create_app().routes):
        route = context.route
        if isinstance(route, APIRoute):
            found += [(method, context.path) for method in sorted(route.methods)]
    return found


def test_every_route_is_known() -> None:
    rooms = {path.rsplit("/", 1)[0] for _, path in routes()}
    assert rooms == {"", "/v1/control", "/v1/fleet", "/v1/runtime"}
    assert len([path for _, path in routes() if path.startswith("/v1/control")]) >= 40


def test_a_site_sees_fleet_and_health_and_403_everywhere_else(door: Door) -> None:
    before = len(door.reached())
    for method, path in routes():
        status = door.post(path) if method == "POST" else door.get(path, method)
        if path == "/health":
            assert status == 200
        elif path.startswith("/v1/fleet/"):
            assert status not in (403, 404, 502, 504), f"{path} did not reach the SuperLink"
        else:
            assert status == 403, path
    for path in ("/", "/docs", "/openapi.json", "/v1", "/v1/fleet", "/v1/fleet/", "/health/x"):
        assert door.get(path) == 403
        assert door.post(path) == 403
    new = door.reached()[before:]
    assert new and all(path == "/health" or path.startswith("/v1/fleet/") for path in new)


def test_other_methods_are_closed(door: Door) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"):
        head = f"{method} /v1/fleet/pull-messages HTTP/1.1\nHost: localhost\nConnection: close\n\n"
        assert door.ask(head)[0] == 403
    assert door.post("/health") == 403


@pytest.mark.parametrize(
    "path",
    [
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/../../v1/control/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "/v1/fleet/%2e%2e%2fcontrol%2flist-runs",
        "/v1/fleet/..%2fcontrol/list-runs",
        "/v1/fleet/..%5ccontrol/list-runs",
        "/v1/fleet/..;/control/list-runs",
        "/v1/fleet/pull-messages/../../control/list-runs",
        "//v1/control/list-runs",
        "/./v1/control/list-runs",
        "/v1/%63ontrol/list-runs",
        "/v1/fleet/%252e%252e/control/list-runs",
        "/v1/fleet/x%0d%0aHost:%20y",
        "/health/../v1/control/list-runs",
        "/health%2f..%2fv1%2fcontrol%2flist-runs",
        "https://localhost/v1/control/list-runs",
        "https://localhost:1/v1/runtime/acquire-task",
        "/V1/CONTROL/LIST-RUNS",
        "/v1/fleet/pull-messages%00/../../control/list-runs",
        "/v1/fleet/pull-messages?/../../control/list-runs",
    ],
)
def test_no_spelling_of_a_path_leads_elsewhere(door: Door, path: str) -> None:
    before = len(door.reached())
    door.post(path)
    door.get(path)
    new = door.reached()[before:]
    assert not [seen for seen in new if "control" in seen or "runtime" in seen or ".." in seen]


@pytest.mark.parametrize("path", ["/v1/fleet/x%0a", "/v1/fleet/pull-messages%0a"])
def test_a_newline_is_no_end_of_a_path(door: Door, path: str) -> None:
    before = len(door.reached())
    assert door.post(path) == 403
    assert door.reached()[before:] == []


def test_a_second_request_cannot_hide_in_the_first(door: Door) -> None:
    inner = "POST /v1/control/list-runs HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n"
    before = len(door.reached())
    head = "POST /v1/fleet/pull-messages HTTP/1.1\nHost: localhost\nConnection: close\n"
    for trick in (
        f"Content-Length: {len(inner)}\nTransfer-Encoding: chunked\n\n0\n\n",
        "Transfer-Encoding: chunked\nTransfer-Encoding: identity\n\n0\n\n",
        "Content-Length: 0\nContent-Length: 5\n\n",
        "Transfer-Encoding : chunked\n\n0\n\n",
        "Upgrade: h2c\nHTTP2-Settings: AAMAAABkAAQAAP__\n\n",
    ):
        door.ask(head + trick + inner)
    assert not [seen for seen in door.reached()[before:] if "control" in seen]


def test_a_chunk_of_an_update_passes_and_a_flood_does_not(door: Door) -> None:
    chunk = b"\0" * (6 * 1024 * 1024)
    assert door.post("/v1/fleet/push-object", chunk) not in (403, 413, 502, 504)
    head = "POST /v1/fleet/push-object HTTP/1.1\nHost: localhost\nConnection: close\n"
    assert door.ask(f"{head}Content-Length: {2**40}\n\n")[0] == 413
    assert not list((door.run / "body").iterdir()), "an upload lay on the proxy's disk"


def test_plaintext_and_old_protocols_get_nothing(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert b"400" in plain.recv(4096).split(b"\r\n", 1)[0]
    other = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", door.port), timeout=10) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        other.wrap_socket(plain, server_hostname="localhost")


def test_a_supernodes_signature_survives_the_proxy(door: Door, live_sites: Any) -> None:
    """A whole run through nginx: node authentication, bundle, base model, updates."""
    before = len(door.reached())
    with live_sites(door.lab, free_port(), superlink=f"localhost:{door.port}"):
        values = run_federation(
            door.lab.coordinator(),
            RunRequest(out=door.lab.run, state=door.service.state),
            on_event=lambda _: None,
            on_flower=print,
        )
    assert [entry["sites"] for entry in values["history"]] == [["s0", "s1"]] * 2
    through = (door.run / "access.log").read_text()
    assert "/v1/fleet/activate-node 200" in through.replace('"', "")
    assert "/v1/fleet/push-object 200" in through.replace('"', "")
    assert "/v1/fleet/activate-node" in door.reached()[before:]

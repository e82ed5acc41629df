"""bin/verify --live, against a local server: no request goes to YClients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.detection.conftest import altered, verify
from tests.rehearsal.host import Host

TOKEN = "partner-token-of-the-operator"
CHECK = "yclients_accepts_the_partner_token"


class YClients(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def inventory(tmp_path: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), YClients)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield altered(tmp_path, yclients_api=f"http://127.0.0.1:{server.server_port}/api/v1")
    server.shutdown()
    server.server_close()
    thread.join()


CASES = [
    (TOKEN, "ready", "YClients accepts it"),
    ("another-token", "failing", 'the cause of "Invalid partner token"'),
    ("", "pending", "--live checks your own YCLIENTS_PARTNER_TOKEN"),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case[1])
def test_the_partner_token_is_tried(
    ver: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inventory: str, case: tuple[str, str, str]
) -> None:
    token, status, evidence = case
    monkeypatch.setenv("YCLIENTS_PARTNER_TOKEN", token)
    found = verify(ver, tmp_path, "--live", inventory=inventory)
    assert CHECK in found.checks(status), found.output
    report = (tmp_path / "verify.json").read_text(encoding="utf-8").replace('\\"', '"')
    assert evidence in report
    assert TOKEN not in report

"""The operator's own tokens: are they the host's? And bin/verify --live, against a local server: no request goes to
YClients."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.detection.conftest import Verified, altered, shell, verify
from tests.detection.faults import FAULTS
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


@pytest.mark.slow
def test_the_operators_own_are_the_hosts(
    ver: Host, sound: Verified, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del sound
    held = dict(line.split("=", 1) for line in ver.ssh("cat /opt/ai-admin/.env").stdout.splitlines() if "=" in line)
    for key in ("YCLIENTS_PARTNER_TOKEN", "YCLIENTS_APP_ID"):
        monkeypatch.setenv(key, held[key])
    same = verify(ver, tmp_path)
    assert same.code == 0, same.output
    monkeypatch.setenv("YCLIENTS_PARTNER_TOKEN", "a-new-token-that-is-not-deployed-yet")
    other = verify(ver, tmp_path)
    assert set(other.checks("failing", "pending")) == {"set[YCLIENTS_PARTNER_TOKEN]"}, other.output
    assert "on the host is not the one that you have here" in str(other.table)
    assert [step["place"] for step in other.table["next"]] == ["on your laptop"], "deploy is the remedy"
    for secret in (held["YCLIENTS_PARTNER_TOKEN"], "a-new-token"):
        assert secret not in other.output + (tmp_path / "verify.json").read_text(encoding="utf-8")


@pytest.mark.slow
def test_one_that_waits_to_be_deployed(
    ver: Host, sound: Verified, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not pending: the operator has it."""
    del sound
    shell(ver, "edit $app/.env /^YCLIENTS_APP_ID=/d; restart", "host")
    monkeypatch.setenv("YCLIENTS_APP_ID", "12345")
    found = verify(ver, tmp_path)
    shell(ver, "back $app/.env; restart", "host")
    assert "set[YCLIENTS_APP_ID]" in found.checks("failing"), found.output
    assert "yours is not on the host yet" in str(found.table)
    assert found.table["next"][0]["place"] == "on your laptop"


@pytest.mark.slow
def test_the_entry_is_judged_without_the_health_check_too(ver: Host, sound: Verified, tmp_path: Path) -> None:
    """The requirements call that temporary."""
    del sound
    inventory = altered(tmp_path, health_check=False)
    without = verify(ver, tmp_path, inventory=inventory)
    fault = next(each for each in FAULTS if each.name == "the entry takes the token for none")
    shell(ver, fault.plant, "host")
    found = verify(ver, tmp_path, inventory=inventory)
    shell(ver, fault.undo, "host")
    assert without.code == 0, without.output
    assert "the running API has it" not in str(without.table), "nobody has asked it"
    assert set(found.checks("failing")) == {"redirect_lets_salons_in"}, found.output

"""The live check of the partner token, against a server of ours that answers as YClients would."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.verify import live
from tests.verify.live import Answer, ask

TOKEN = "the-partner-token"


class YClients(BaseHTTPRequestHandler):
    """Answers with the codes of `script` one after the other, the last one for ever; keeps what it was asked."""

    script: list[int]
    asked: list[tuple[str, str | None]]
    location = ""

    def do_GET(self) -> None:
        type(self).asked.append((self.path, self.headers.get("Authorization")))
        code = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        self.send_response(code)
        if code == 429:
            self.send_header("Retry-After", "0")
        if 300 <= code < 400:
            self.send_header("Location", self.location)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def yclients() -> Iterator[tuple[type[YClients], str]]:
    handler = type("Handler", (YClients,), {"script": [200], "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield handler, f"http://127.0.0.1:{server.server_port}/api/v1"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.parametrize(
    ("script", "answer", "requests"),
    [
        ([200], Answer.ACCEPTED, 1),
        ([401], Answer.REJECTED, 1),
        ([403], Answer.REJECTED, 1),
        ([429, 429, 200], Answer.ACCEPTED, 3),
        ([500, 502, 200], Answer.ACCEPTED, 3),
        ([503, 401], Answer.REJECTED, 2),
        ([503], Answer.UNREACHABLE, 4),
        ([404], Answer.UNREACHABLE, 1),
    ],
)
def test_answers(
    yclients: tuple[type[YClients], str],
    monkeypatch: pytest.MonkeyPatch,
    script: list[int],
    answer: Answer,
    requests: int,
) -> None:
    monkeypatch.setattr("urllib3.util.Retry.sleep_for_retry", lambda *_: True)
    monkeypatch.setattr("urllib3.util.Retry._sleep_backoff", lambda *_: None)
    handler, url = yclients
    handler.script = script
    found, message = ask(url, TOKEN)
    assert found is answer
    assert TOKEN not in message
    assert handler.asked == [("/api/v1/companies?count=1", f"Bearer {TOKEN}")] * requests


def test_a_redirect_does_not_carry_the_token_elsewhere(yclients: tuple[type[YClients], str]) -> None:
    handler, url = yclients
    handler.script, handler.location = [302], f"{url}/elsewhere"
    assert ask(url, TOKEN)[0] is Answer.UNREACHABLE
    assert len(handler.asked) == 1


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "RETRIES", 0)
    found, message = ask("http://127.0.0.1:9/api/v1", TOKEN)
    assert found is Answer.UNREACHABLE
    assert "ConnectionError" in message and TOKEN not in message


def test_a_netrc_does_not_replace_the_token(
    yclients: tuple[type[YClients], str], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    netrc = tmp_path_factory.mktemp("home") / ".netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    handler, url = yclients
    ask(url, TOKEN)
    assert handler.asked[0][1] == f"Bearer {TOKEN}"

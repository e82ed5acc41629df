"""How many requests fail while deploys restart the API: `python -m benchmarks.load [RESTARTS]`, on a host of its own.

50 requests a second from one client through nginx and TLS, GET, HEAD and POST, each with an id that the application
counts, and five socket.io clients: over deploys that change nothing, over ten restarts, and over one in which the API
does not survive its new token. On a site written by hand, and on one that deploy.py wrote. Bounded: each part ends 12
seconds after its last deploy.
"""

from __future__ import annotations

import http.client
import json
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.rehearsal.host import Host, of_this_run, until
from tests.rehearsal.story import deploy, tokens

RATE = 50  # requests a second
TIMEOUT = 30  # seconds
AFTER = 12  # seconds that the load goes on after the deploys: nginx holds grudges for 10
RESTARTS = 10
METHODS = ("GET", "POST", "HEAD", "POST")  # in turn
PATHS = {"POST": "/webhook/load"}  # else:
PATH = "/api/load"
SITE = "/etc/nginx/sites-*/ai-admin.app"
SOURCE = "opt/ai-admin/src/index.js"
EXECUTED = "var/tmp/executed"
COUNTS = f"""
app.all(['{PATH}', '{PATHS["POST"]}'], (req, res) => {{
  require('fs').appendFileSync('/{EXECUTED}', `${{req.query.id}}\\n`);
  setTimeout(() => res.json({{ success: true }}), 20); // as long as its own routes that ask the database
}});
"""
CRASHES = "if (require('fs').readFileSync('.env', 'utf8').includes('crash')) setTimeout(() => process.exit(1), 100);\n"
CLIENTS = Path(__file__).with_name("clients.js")
HOW_MANY = 5  # clients
ANYONE = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # once: to load the system's CAs takes longer than a request
ANYONE.check_hostname, ANYONE.verify_mode = False, ssl.CERT_NONE


@dataclass
class Figures:
    """`back`: seconds from the opening of the API's port until a socket.io client was connected again."""

    requests: int = 0
    failed: int = 0
    twice: int = 0
    longest: float = 0.0  # seconds, of those that were answered
    changed: list[list[str]] = field(default_factory=list)  # by deploy
    back: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.requests} requests, {self.failed} failed, {self.twice} executed twice"
        text += f", the slowest answer took {self.longest:.2f} s"
        if self.back:
            text += (
                f"; {len(self.back)} times a socket.io client was back, at most {max(self.back):.2f} s after the port"
            )
        return text


def ask(
    address: str, method: str = "GET", path: str = "/marketplace/onboarding?token=load", timeout: float = TIMEOUT
) -> tuple[int, float]:
    """One request: its status (0: no answer) and seconds."""
    started = time.monotonic()
    connection = http.client.HTTPSConnection(address, timeout=timeout, context=ANYONE)
    try:
        connection.request(method, path, "{}" if method == "POST" else None, headers={"Host": "ai-admin.app"})
        response = connection.getresponse()
        response.read()
        return response.status, time.monotonic() - started
    except (OSError, http.client.HTTPException):
        return 0, time.monotonic() - started
    finally:
        connection.close()


def plant(host: Host) -> None:
    """The application counts what it executes, and crashes when its token says so."""
    source = host.root / SOURCE
    text = source.read_text(encoding="utf-8")
    mount = "app.use('/', marketplace);"
    if mount not in text:
        raise SystemExit(f"load: {source} has no {mount}")
    source.write_text(CRASHES + text.replace(mount, COUNTS + mount), encoding="utf-8")
    host.ssh("grep -q ai-admin.app /etc/hosts || echo 127.0.0.1 ai-admin.app >> /etc/hosts")


@contextmanager
def clients(host: Host) -> Iterator[list[dict[str, str]]]:
    """What the socket.io clients and the API's port do: `at` (seconds), `who`, `what`."""
    command = [*host.ssh_command(), "NODE_TLS_REJECT_UNAUTHORIZED=0", "NODE_NO_WARNINGS=1", "node", "-"]
    with CLIENTS.open() as program:
        process = subprocess.Popen(command, stdin=program, stdout=subprocess.PIPE, text=True)
    heard: list[dict[str, str]] = []

    def listen() -> None:
        for line in process.stdout or []:
            heard.append(json.loads(line))  # at once: whoever waits for it looks meanwhile

    reader = threading.Thread(target=listen)
    reader.start()
    try:
        yield heard
    finally:
        process.terminate()
        process.wait(60)
        reader.join()


def back_after(heard: Sequence[dict[str, str]]) -> list[float]:
    """Each time that the port opened: the seconds until each client that had lost its connection had it again."""
    found, opened, lost = [], 0.0, dict[str, bool]()
    for each in heard:
        who, at = each["who"], float(each["at"])
        if who == "port":
            opened = at if each["what"] == "open" else 0.0
        elif each["what"] == "connect":
            if lost.pop(who, False):
                found.append(max(0.0, at - opened))
        elif each["what"].startswith("disconnect"):
            lost[who] = True
    return [*found, *(float("inf") for _ in lost)]  # never


def under_load(
    host: Host,
    environments: Sequence[dict[str, str]],
    runbook: str | None = None,
    rate: int = RATE,
    timeout: float = TIMEOUT,
) -> Figures:
    """One deploy after the other, with the load on the host."""
    figures = Figures()
    asked: list[Future[tuple[int, float]]] = []
    (host.root / EXECUTED).write_text("")

    def deploys() -> None:
        figures.changed = [deploy(host, environment=each, runbook=runbook).changed for each in environments]

    run = threading.Thread(target=deploys)
    with clients(host) as heard, ThreadPoolExecutor(200) as pool:
        until(120, "the clients", lambda: sum(each["what"] == "connect" for each in heard) >= HOW_MANY)
        run.start()
        begun, ended = time.monotonic(), None
        while ended is None or time.monotonic() < ended + AFTER:
            if ended is None and not run.is_alive():
                ended = time.monotonic()
            method = METHODS[len(asked) % len(METHODS)]
            path = f"{PATHS.get(method, PATH)}?id={len(asked)}"
            asked.append(pool.submit(ask, host.address, method, path, timeout))
            time.sleep(max(0.0, begun + len(asked) / rate - time.monotonic()))
        answers = [each.result() for each in asked]
    executed = Counter((host.root / EXECUTED).read_text().split())
    late = [
        f"{number / rate:.1f} {METHODS[number % 4]} {code}" for number, (code, _) in enumerate(answers) if code != 200
    ]
    print(f"    failed, by seconds: {', '.join(late) or 'none'}", file=sys.stderr)
    figures.requests, figures.failed = len(answers), len(late)
    figures.twice = sum(times > 1 for times in executed.values())
    figures.longest = max((seconds for code, seconds in answers if code == 200), default=0.0)
    figures.back = back_after(heard)
    return figures


def main() -> None:
    restarts = int(sys.argv[1]) if sys.argv[1:] else RESTARTS
    host = of_this_run("load")
    try:
        for site in ("by hand", "ours"):
            host.reset()
            plant(host)
            if site == "ours":
                host.ssh(f"rm {SITE} && systemctl reload nginx")
            first = deploy(host, environment=tokens())
            if first.code:
                raise SystemExit(first.output)
            print(f"site {site}")
            print(f"  no change    {under_load(host, [{}])}", flush=True)
            print(f"  {restarts} restarts  {under_load(host, [tokens() for _ in range(restarts)])}", flush=True)
            print(
                f"  a crash      {under_load(host, [{**tokens(), 'YCLIENTS_PARTNER_TOKEN': 'crash-now'}])}", flush=True
            )
    finally:
        host.down()


if __name__ == "__main__":
    main()

"""How many requests fail while a deploy runs: `python -m benchmarks.load`, on a rehearsal host of its own.

50 requests a second from one client, through nginx and TLS, to a page that the API serves; once over a run that changes
nothing, once while tokens arrive and the API restarts. Bounded: each part ends 12 seconds after its deploy.
"""

from __future__ import annotations

import http.client
import ssl
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.rehearsal.host import Host, of_this_run
from tests.rehearsal.story import deploy, tokens

RATE = 50  # requests a second
TIMEOUT = 10  # seconds
AFTER = 12  # seconds that the load goes on after the deploy: nginx holds grudges for 10
PATH = "/marketplace/onboarding?token=load"


@dataclass(frozen=True)
class Figures:
    requests: int
    failed: int
    longest: float  # seconds, of those that were answered

    def __str__(self) -> str:
        return f"{self.requests} requests, {self.failed} failed, the slowest answer took {self.longest:.2f} s"


def ask(address: str) -> tuple[int, float]:
    """One request: its status (0: no answer) and seconds."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    started = time.monotonic()
    connection = http.client.HTTPSConnection(address, timeout=TIMEOUT, context=context)
    try:
        connection.request("GET", PATH, headers={"Host": "ai-admin.app"})
        response = connection.getresponse()
        response.read()
        return response.status, time.monotonic() - started
    except OSError:
        return 0, time.monotonic() - started
    finally:
        connection.close()


def under_load(host: Host, environment: dict[str, str]) -> tuple[Figures, list[str]]:
    """Deploy once with the load on it. Returns the figures, and what the deploy changed."""
    changed: list[str] = []
    run = threading.Thread(target=lambda: changed.extend(deploy(host, environment=environment).changed))
    with ThreadPoolExecutor(100) as pool:
        asked = []
        run.start()
        begun = time.monotonic()
        ended = None
        while ended is None or time.monotonic() < ended + AFTER:
            if ended is None and not run.is_alive():
                ended = time.monotonic()
            asked.append(pool.submit(ask, host.address))
            time.sleep(max(0.0, begun + len(asked) / RATE - time.monotonic()))
        answers = [each.result() for each in asked]
    codes = Counter(code for code, _ in answers)
    late = [f"{number / RATE:.1f}" for number, (code, _) in enumerate(answers) if code != 200]
    print(f"    answers: {dict(codes)}{'; failed, by seconds: ' if late else ''}{' '.join(late)}", file=sys.stderr)
    longest = max((seconds for code, seconds in answers if code == 200), default=0.0)
    return Figures(len(answers), len(answers) - codes[200], longest), changed


def main() -> None:
    host = of_this_run("load")
    host.reset()
    try:
        deploy(host)
        nothing, changed = under_load(host, {})
        print(f"no change      {nothing}  (changed: {changed or 'nothing'})")
        arrival, changed = under_load(host, tokens())
        print(f"token arrival  {arrival}  (changed: {', '.join(changed)})")
    finally:
        host.down()


if __name__ == "__main__":
    main()

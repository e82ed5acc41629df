"""What the world sees of the site, read from the operator's machine: DNS, certificate, redirect, page, open port."""

from __future__ import annotations

import errno
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from settings import Settings

TIMEOUT = 5  # seconds
PATH = "/marketplace/onboarding?verification=1"
HELD = 11  # seconds: see programs/http.py
_UNTIL: dict[tuple[str, str], float] = {}  # by domain and address: pytest makes each check once more
PORT_TIMEOUT = 1  # seconds; a firewall may drop the packets
# Of IPv6, on a machine without, or whose router does not answer there.
NOT_FROM_HERE = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# Firewalls for web applications refuse what says it is a program.
BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36"


@dataclass(frozen=True)
class Seen:
    """An answer; or `failed`, as one of certificate, timeout, refused, not from here, other; and then why in words."""

    status: int = 0
    type: str = ""
    location: str = ""
    failed: str = ""
    why: str = ""


@dataclass(frozen=True)
class Outside:
    """`page`, `redirect` (of http) and `paths` (by question) by the address that was asked, and by it the `mark` that
    its page was asked with. `port`: open, closed, or not tried."""

    addresses: list[str]
    ssh_addresses: list[str]
    page: dict[str, Seen]
    redirect: dict[str, Seen]
    paths: dict[str, dict[str, Seen]]
    marks: dict[str, str]
    port: str


class _Named(HTTPAdapter):
    """Connects to an address, and requires a certificate for a name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, server_hostname=self.name, assert_hostname=self.name, **kwargs)


def look(settings: Settings, ssh_address: str, questions: Mapping[str, Mapping[str, Any]]) -> Outside:
    """`ssh_address` is empty for this machine itself, where a firewall's rules for the world cannot be seen."""
    with ThreadPoolExecutor(16) as pool:
        reached = pool.submit(_resolve, ssh_address)
        named = settings.verify_address.split(",") if settings.verify_address else [settings.domain]
        addresses = [found for each in named for found in _resolve(each)]  # an address becomes as `ip` writes it
        marks = {each: secrets.token_hex(8) for each in addresses}
        pages = {each: pool.submit(_page, settings, each, marks[each]) for each in addresses}
        paths = {
            each: {name: pool.submit(_ask, settings, each, question) for name, question in questions.items()}
            for each in addresses
        }
        plain = {each: pool.submit(_get, settings, "http", each, PATH) for each in addresses}
        port = _port(reached.result(), settings.api_port)
        return Outside(
            addresses,
            reached.result(),
            {each: page.result() for each, page in pages.items()},
            {each: page.result() for each, page in plain.items()},
            {each: {name: found.result() for name, found in asked.items()} for each, asked in paths.items()},
            marks,
            port,
        )


def ask_page(settings: Settings, address: str) -> Seen:
    return _unless_held((settings.domain, address), lambda: _page(settings, address))


def ask(settings: Settings, address: str, question: Mapping[str, Any]) -> Seen:
    return _unless_held((settings.domain, address), lambda: _ask(settings, address, question))


def _unless_held(place: tuple[str, str], look: Callable[[], Seen]) -> Seen:
    """Each worker of nginx considers the API down for itself: the one that we reach, and not that which the host has
    reached."""
    deadline = _UNTIL.setdefault(place, time.monotonic() + HELD)
    while (seen := look()).status == 502 and time.monotonic() < deadline:
        time.sleep(0.5)
    return seen


def _page(settings: Settings, address: str, mark: str = "1") -> Seen:
    return _get(settings, "https", address, f"{PATH.partition('=')[0]}={mark}")


def _ask(settings: Settings, address: str, question: Mapping[str, Any]) -> Seen:
    """As the host asks itself: see QUESTIONS."""
    origin = {"Origin": f"https://{settings.domain}"} if question.get("of_page") else {}
    return _get(settings, "https", address, question["path"], {**question.get("headers", {}), **origin})


def _resolve(name: str) -> list[str]:
    if not name:
        return []
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def _port(addresses: list[str], port: int) -> str:
    states = set()
    for address in addresses:
        with closing(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)) as connection:
            connection.settimeout(PORT_TIMEOUT)
            states.add("closed" if (code := connection.connect_ex((address, port))) else "open")
            if ":" in address and code in NOT_FROM_HERE:
                states.discard("closed")
    return "open" if "open" in states else "closed" if states else "not tried"


def ask_elsewhere(settings: Settings, address: str) -> Seen:
    """An https address of another server."""
    with _session(settings) as session:
        session.verify = True
        return _asked(session, address, elsewhere=True)


def _get(settings: Settings, scheme: str, address: str, path: str, headers: Mapping[str, str] | None = None) -> Seen:
    with _session(settings) as session:
        session.mount("https://", _Named(settings.domain))
        session.headers.update({"Host": settings.domain, **(headers or {})})
        place = f"[{address}]" if ":" in address else address
        return _asked(session, f"{scheme}://{place}{path}")


def _session(settings: Settings) -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # neither a proxy nor a ~/.netrc may interfere
    session.verify = settings.verify_ca or True
    session.headers["User-Agent"] = BROWSER
    return session


def _asked(session: requests.Session, url: str, elsewhere: bool = False) -> Seen:
    """A busy host may answer when it is asked once more."""
    seen = _asked_once(session, url, elsewhere)
    return _asked_once(session, url, elsewhere) if seen.failed == "timeout" else seen


def _asked_once(session: requests.Session, url: str, elsewhere: bool) -> Seen:
    """Of a server elsewhere, TLS that fails for another reason than its certificate may have been cut on the way."""
    try:
        response = session.get(url, timeout=TIMEOUT, allow_redirects=False, stream=True)
    except requests.exceptions.SSLError as error:
        why = re.search(r"verify failed: (.*?)(?: \(_ssl|'|$)", str(error))
        return Seen(failed="certificate" if why or not elsewhere else "other", why=why[1] if why else "TLS fails")
    except requests.RequestException as error:
        return _failure(error, url.startswith(("http://[", "https://[")))
    kind = response.headers.get("Content-Type", "").split(";")[0]
    return Seen(response.status_code, kind, response.headers.get("Location", ""))


def _failure(error: requests.RequestException, six: bool) -> Seen:
    if isinstance(error, requests.Timeout):
        return Seen(failed="timeout", why=f"no answer within {TIMEOUT} s")
    text = str(error)
    if six and any(f"[Errno {number}]" in text for number in NOT_FROM_HERE):
        return Seen(failed="not from here", why="this machine has no IPv6 that works")
    if f"[Errno {errno.ECONNREFUSED}]" in text:
        return Seen(failed="refused", why="the connection is refused")
    return Seen(failed="other", why=type(error).__name__)

"""What the world sees of the site, read from the operator's machine: DNS, certificate, redirect, page, open port."""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from settings import Settings

TIMEOUT = 5  # seconds
PORT_TIMEOUT = 1  # seconds; a firewall may drop the packets


class _Named(HTTPAdapter):
    """Connects to an address, and requires a certificate for a name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, server_hostname=self.name, assert_hostname=self.name, **kwargs)


def look(settings: Settings, ssh_address: str) -> dict[str, str]:
    """name -> what was seen; what could not be tried is absent. `ssh_address` is empty for this machine itself, where
    a firewall's rules for the world cannot be seen."""
    with ThreadPoolExecutor(1) as pool:
        port = pool.submit(_port, ssh_address, settings.api_port)
        addresses = [settings.verify_address] if settings.verify_address else _resolve(settings.domain)
        seen = {"addresses": " ".join(addresses), "ssh_address": " ".join(_resolve(ssh_address))}
        if addresses:
            seen |= _pages(settings, addresses[0])
        return {**seen, "port": port.result()}


def _pages(settings: Settings, address: str) -> dict[str, str]:
    with requests.Session() as session:
        session.trust_env = False  # neither a proxy nor a ~/.netrc may interfere
        session.mount("https://", _Named(settings.domain))
        session.verify = settings.verify_ca or True
        session.headers["Host"] = settings.domain
        place = f"[{address}]" if ":" in address else address
        return {
            "redirect": _get(session, f"http://{place}/"),
            "page": _get(session, f"https://{place}/marketplace/onboarding"),
        }


def _resolve(name: str) -> list[str]:
    if not name:
        return []
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def _port(address: str, port: int) -> str:
    if not address:
        return "not tried"
    with closing(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)) as connection:
        connection.settimeout(PORT_TIMEOUT)
        try:
            connection.connect((address, port))
        except OSError:
            return "closed"
        return "open"


def _get(session: requests.Session, url: str) -> str:
    """`status content-type location`, or `000 reason`."""
    try:
        response = session.get(url, timeout=TIMEOUT, allow_redirects=False, stream=True)
    except requests.exceptions.SSLError as error:
        why = re.search(r"verify failed: (.*?)(?: \(_ssl|'|$)", str(error))
        return f"000 {why[1] if why else 'TLS failed'}"
    except requests.RequestException as error:
        return f"000 {type(error).__name__}"
    headers = response.headers
    return f"{response.status_code} {headers.get('Content-Type', '-').split(';')[0]} {headers.get('Location', '-')}"

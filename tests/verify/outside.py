"""What the world sees of the site, read from the operator's machine: name, certificate, redirect, what answers."""

from __future__ import annotations

import re
import socket
from contextlib import closing
from typing import Any

import requests
from requests.adapters import HTTPAdapter

from settings import Settings

TIMEOUT = 5  # seconds
PORT_TIMEOUT = 1  # seconds; a firewall that drops is not waited for longer


class _Named(HTTPAdapter):
    """Connects to an address, and wants the certificate of a name."""

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, server_hostname=self.name, assert_hostname=self.name, **kwargs)


def look(settings: Settings, ssh_address: str) -> dict[str, str]:
    """name -> what was seen; what could not be tried is absent."""
    addresses = [settings.verify_address] if settings.verify_address else _resolve(settings.domain)
    seen = {
        "addresses": " ".join(addresses),
        "ssh_address": " ".join(_resolve(ssh_address)),
        "port": _port(ssh_address, settings.api_port),
    }
    if addresses:
        with requests.Session() as session:
            session.trust_env = False  # neither a proxy nor a ~/.netrc comes between
            session.mount("https://", _Named(settings.domain))
            session.verify = settings.verify_ca or True
            session.headers["Host"] = settings.domain
            address = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
            seen["redirect"] = _get(session, f"http://{address}/")
            seen["page"] = _get(session, f"https://{address}/marketplace/onboarding")
    return seen


def _resolve(name: str) -> list[str]:
    try:
        return sorted({str(found[4][0]) for found in socket.getaddrinfo(name, None)})
    except OSError:
        return []


def _port(address: str, port: int) -> str:
    with closing(socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)) as connection:
        connection.settimeout(PORT_TIMEOUT)
        try:
            connection.connect((address, port))
        except OSError:
            return "closed"
        return "open"


def _get(session: requests.Session, url: str) -> str:
    """`status content-type location`, or `000 why`."""
    try:
        response = session.get(url, timeout=TIMEOUT, allow_redirects=False, stream=True)
    except requests.exceptions.SSLError as error:
        why = re.search(r"verify failed: (.*?)(?: \(_ssl|'|$)", str(error))
        return f"000 {why[1] if why else 'TLS failed'}"
    except requests.RequestException as error:
        return f"000 {type(error).__name__}"
    headers = response.headers
    return f"{response.status_code} {headers.get('Content-Type', '-').split(';')[0]} {headers.get('Location', '-')}"

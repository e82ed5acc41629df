"""Asks YClients itself whether it accepts the partner token. Only on request: bin/verify --live."""

from __future__ import annotations

from enum import StrEnum

import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

CONNECT, READ = 5, 15  # seconds
RETRIES = 3  # on 429 and 5xx, after 0, 1 and 2 s, or as long as the server's Retry-After says


class Answer(StrEnum):
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    UNREACHABLE = "unreachable"


def ask(base_url: str, token: str) -> tuple[Answer, str]:
    """The verdict, and what was seen, without the token. It makes one harmless request: the first of the companies.

    YClients' REST API v1 takes the partner token as a Bearer token, and answers 401 or 403 to an unknown one. A
    redirect is not followed: it would send the token elsewhere.
    """
    session = requests.Session()
    session.trust_env = False  # a ~/.netrc would replace the token
    policy = Retry(RETRIES, status_forcelist=(429, 500, 502, 503, 504), backoff_factor=0.5, raise_on_status=False)
    for scheme in ("https://", "http://"):
        session.mount(scheme, HTTPAdapter(max_retries=policy))
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/vnd.yclients.v2+json"}
    try:
        response = session.get(
            f"{base_url}/companies",
            params={"count": 1},
            headers=headers,
            timeout=(CONNECT, READ),
            allow_redirects=False,
        )
    except requests.RequestException as error:
        return Answer.UNREACHABLE, f"{base_url} cannot be reached: {type(error).__name__}"
    if response.status_code == 200:
        return Answer.ACCEPTED, "YClients accepts it"
    if response.status_code in (401, 403):
        return (
            Answer.REJECTED,
            f'YClients rejects it ({response.status_code}), the cause of "Invalid partner token"',
        )
    return Answer.UNREACHABLE, f"{base_url} answers {response.status_code}, which shows nothing about the token"

"""How the checks read HTTP answers, and which preconditions they share."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.verify.plugin import needs
from tests.verify.target import Reading

ENGINE = '0{"sid":'  # how Engine.IO answers a handshake


class Answer(NamedTuple):
    """Without an answer, `code` is 000 and `body` the reason."""

    code: str
    type: str
    location: str
    body: str


def answer(probe: Reading, name: str) -> Answer:
    """`direct.…` was asked on the API's own port, `site.…` through nginx and TLS, both on the host."""
    return Answer(*[*probe[name].split(" ", 3), "", "", ""][:4])


def through_nginx(probe: Reading, name: str) -> Answer:
    """Only when nginx runs and the API answers; each has a check of its own."""
    needs(probe["nginx.active"] == "active", "nginx does not run: see Nginx WebSocket")
    needs(answer(probe, "direct.health").code != "000", "the API does not answer: see Endpoints")
    return answer(probe, name)


def is_landing_page(probe: Reading, found: Answer) -> bool:
    return found.code == "200" and found.body == answer(probe, "site.landing").body


def running_secrets(probe: Reading) -> dict[str, Any] | None:
    """Which secrets the running API has, according to the health check; None when another route answers."""
    found = answer(probe, "direct.health_check")
    try:
        environment = json.loads(found.body)["environment"]
    except (ValueError, KeyError, TypeError):
        return None
    return environment if found.code == "200" and isinstance(environment, dict) else None

"""Preconditions that checks of several rows share."""

from __future__ import annotations

import json
from typing import Any

from testinfra.host import Host

from tests.verify.target import Answer, Answers, needs

ENGINE = '0{"sid":'  # how Engine.IO answers a handshake


def through_nginx(host: Host, answers: dict[str, Answers], question: str) -> Answer:
    """Only when nginx runs and the API answers; each has a check of its own."""
    needs(host.service("nginx").is_running, "nginx does not run: see Nginx WebSocket")
    needs(answers["health"].direct.status, "the API does not answer: see Endpoints")
    return answers[question].site


def is_landing_page(found: Answer, answers: dict[str, Answers]) -> bool:
    return found.status == 200 and found.body == answers["landing"].site.body


def running_secrets(answers: dict[str, Answers]) -> dict[str, Any] | None:
    """Which secrets the running API has, according to the health check; None when another route answers."""
    found = answers["health_check"].direct
    try:
        environment = json.loads(found.body)["environment"]
    except (ValueError, KeyError, TypeError):
        return None
    return environment if found.status == 200 and isinstance(environment, dict) else None

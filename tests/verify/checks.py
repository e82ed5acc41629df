"""What checks of several rows share, and rules that are tested by themselves."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urljoin

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


def own_files(page: str, path: str) -> list[str]:
    """The paths of the scripts and styles that a page at `path` loads from its own site."""
    scripts = re.findall(r"""<script\b[^>]*\ssrc\s*=\s*["']?([^"'\s>]+)""", page, re.IGNORECASE)
    links = [each for each in re.findall(r"<link\b[^>]*>", page, re.IGNORECASE) if "stylesheet" in each.lower()]
    styles = [found[1] for each in links if (found := re.search(r"""\shref\s*=\s*["']?([^"'\s>]+)""", each))]
    inside = [each for each in (*scripts, *styles) if not re.match(r"//|[\w+.-]+:", each)]
    return list(dict.fromkeys(urljoin(path, each) for each in inside))[:20]


def major(version: str) -> int:
    found = re.search(r"\d+", version)
    return int(found[0]) if found else 0


def is_another_major(version: str, wanted: str) -> bool:
    """Of `^4.8.1` and the like; what any other range takes (`*`, `>=3`, a tag, an address), npm knows."""
    is_plain = re.fullmatch(r"[\^~=v]*\d+(\.[\w.+-]*)?", wanted)
    return bool(is_plain) and major(version) != major(wanted)


def lasting(days: float) -> int:
    """Of a certificate for so many days, those that must be left."""
    return int(days * 0.4 if days < 10 else min(25, days * 25 / 90))

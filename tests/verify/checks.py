"""What checks of several rows share, and rules that are tested by themselves."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

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


def files_of(page: str, path: str, domain: str) -> tuple[list[str], list[str]]:
    """What a page at `path` of the domain loads: the paths of scripts and styles of its own site, and the addresses of
    scripts from elsewhere."""
    scripts = re.findall(r"""<script\b[^>]*\ssrc\s*=\s*["']?([^"'\s>]+)""", page, re.IGNORECASE)
    links = [each for each in re.findall(r"<link\b[^>]*>", page, re.IGNORECASE) if "stylesheet" in each.lower()]
    styles = [found[1] for each in links if (found := re.search(r"""\shref\s*=\s*["']?([^"'\s>]+)""", each))]
    own = f"https://{domain}"
    all_ = {each: urljoin(f"{own}{path}", each) for each in [*scripts, *styles]}
    inside = [urlsplit(each)._replace(scheme="", netloc="").geturl() for each in all_.values() if _is_of(each, own)]
    outside = [all_[each] for each in scripts if re.match("https?:", all_[each]) and not _is_of(all_[each], own)]
    return list(dict.fromkeys(inside))[:20], list(dict.fromkeys(outside))[:10]


def _is_of(address: str, origin: str) -> bool:
    return address == origin or address.startswith(f"{origin}/")


def forbidden(policies: list[str], page: str, path: str, domain: str, has_data_images: bool) -> list[str]:
    """What the page does and one of its Content-Security-Policies (CSP 3) forbids: scripts, the connection to
    socket.io, and a QR code as a `data:` image."""
    scripts = re.findall(r"<script\b([^>]*)>", page, re.IGNORECASE)
    found = []
    for policy in [*policies, *re.findall(META_POLICY, page, re.IGNORECASE)]:
        directives = {words[0].lower(): words[1:] for words in map(str.split, policy.split(";")) if words}

        def allowed(*names: str, of: dict[str, list[str]] = directives) -> list[str] | None:
            """By the first of these directives that is there; None where none is."""
            return next((of[name] for name in (*names, "default-src") if name in of), None)

        sources = allowed("script-src-elem", "script-src")
        if sources is not None:
            found += [f"<script{each}>" for each in scripts if not _may_run(sources, each, path, domain)]
        handlers = allowed("script-src-attr", "script-src")
        if handlers is not None and "'unsafe-inline'" not in handlers and re.search(r"<[^>]+\son\w+\s*=", page):
            found.append("an on… attribute")
        connects = allowed("connect-src")
        here = {"*", "'self'", "https:", "wss:", domain, f"https://{domain}", f"wss://{domain}"}
        if connects is not None and not here & {*connects}:
            found.append("the connection to socket.io (connect-src)")
        images = allowed("img-src")
        if has_data_images and images is not None and "data:" not in images:
            found.append("a QR code as a data: image (img-src)")
    return list(dict.fromkeys(found))


META_POLICY = r"""<meta\b[^>]*http-equiv\s*=\s*["']?Content-Security-Policy["']?[^>]*\scontent\s*=\s*"([^"]*)\""""


def _may_run(sources: list[str], attributes: str, path: str, domain: str) -> bool:
    nonce = re.search(r"""\bnonce\s*=\s*["']?([^"'\s>]+)""", attributes)
    if nonce and f"'nonce-{nonce[1]}'" in sources:
        return True
    src = re.search(r"""\bsrc\s*=\s*["']?([^"'\s>]+)""", attributes)
    if src is None:  # a nonce or a digest switches 'unsafe-inline' off; whether a digest is right is not computed
        strict = any(each.startswith("'nonce-") for each in sources)
        return any(each.startswith("'sha") for each in sources) or ("'unsafe-inline'" in sources and not strict)
    if "'strict-dynamic'" in sources:
        return False
    address = urlsplit(urljoin(f"https://{domain}{path}", src[1]))
    return any(_names(each, address, domain) for each in sources)


def _names(source: str, address: SplitResult, domain: str) -> bool:
    """Does an expression of a policy allow the address? Paths in it are not compared."""
    host = address.netloc.lower()
    if source in ("*", f"{address.scheme}:"):
        return True
    if source == "'self'":
        return host == domain
    scheme, _, named = source.rpartition("://")
    named = named.partition("/")[0].lower()
    fits = host.endswith(named[1:]) if named.startswith("*.") else host == named
    return fits and scheme in ("", address.scheme)


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

"""What checks of several rows share, and rules that are tested by themselves."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin, urlsplit

from testinfra.host import Host

from tests.verify.target import Answer, Answers, needs

ENGINE = '0{"sid":'  # how Engine.IO answers a handshake


def through_nginx(host: Host, answers: dict[str, Answers], question: str) -> Answer:
    """Only when nginx runs and the API answers; each has a check of its own."""
    needs(host.service("nginx").is_running, "nginx does not run: see Nginx WebSocket")
    needs(answers["health"].direct.status, "the API does not answer: see Endpoints")
    return answers[question].site


def is_landing_page(found: Answer, answers: dict[str, Answers]) -> bool:
    """Other questions keep less of a body, so only its beginning is compared."""
    return found.status == 200 and found.body[:20_000] == answers["landing"].site.body[:20_000]


def running_secrets(answers: dict[str, Answers]) -> dict[str, Any] | None:
    """Which secrets the running API has, according to the health check; None when another route answers."""
    found = answers["health_check"].direct
    try:
        environment = json.loads(found.body)["environment"]
    except (ValueError, KeyError, TypeError):
        return None
    return environment if found.status == 200 and isinstance(environment, dict) else None


JAVASCRIPT = ("", "module", "text/javascript", "application/javascript")


class Page(HTMLParser):
    """What a browser makes of the HTML at an address, as far as it is asked here. `scripts` and `styles`: where they
    are; `tags`: the attributes of each script; `handlers`: whether some element has an on… attribute."""

    def __init__(self, html: str, address: str) -> None:
        super().__init__()
        self.origin, self.base, self.html = _origin(address), address, html
        self.tags: list[dict[str, str]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.policies: list[str] = []
        self.handlers = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.handlers |= any(name.startswith("on") for name in given)
        if tag == "base" and "href" in given:
            self.base = self.at(given["href"])
        elif tag == "script" and given.get("type", "").lower() in JAVASCRIPT:
            self.tags.append(given)
            self.scripts += [self.at(given["src"])] if given.get("src") else []
        elif tag == "link" and "stylesheet" in given.get("rel", "").lower() and given.get("href"):
            self.styles.append(self.at(given["href"]))
        elif tag == "meta" and given.get("http-equiv", "").lower() == "content-security-policy":
            self.policies.append(given.get("content", ""))

    def parse_marked_section(self, i: int, report: int = 1) -> int:
        """`<![…]>`, a comment to a browser: Python 3.11 raises where it does not know the word."""
        del report
        return self.rawdata.find(">", i) + 1 or -1

    def at(self, address: str) -> str:
        try:
            return urljoin(self.base, address)
        except ValueError:  # a browser does not load it either
            return ""

    def of_its_site(self) -> list[str]:
        """The paths of what it loads from its own site."""
        own = [each for each in (*self.scripts, *self.styles) if _origin(each) == self.origin]
        paths = (urlsplit(each)._replace(scheme="", netloc="", fragment="").geturl() for each in own)
        return list(dict.fromkeys(paths))[:20]

    def of_socket(self) -> str:
        """What its socket.io client asks first: by polling, unless it is told otherwise."""
        is_alone = re.search(r"""transports['"]?\s*:\s*\[\s*['"]websocket""", self.html)
        return f"{'wss' if is_alone else 'https'}://{self.origin.partition('://')[2]}/socket.io/"

    def from_elsewhere(self) -> list[str]:
        """The addresses of scripts of other sites."""
        others = [each for each in self.scripts if each.startswith("http") and _origin(each) != self.origin]
        return list(dict.fromkeys(others))[:10]


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(':443')}"


def forbidden(page: Page, policies: list[str], has_data_images: bool) -> list[str]:
    """What the page does and one of its Content-Security-Policies (CSP 3) forbids: scripts, the connection to
    socket.io, and a QR code as a `data:` image. Digests are not computed."""
    found = []
    for policy in [*policies, *page.policies]:
        directives: dict[str, list[str]] = {}
        for name, *sources in filter(None, map(str.split, policy.split(";"))):
            directives.setdefault(name.lower(), sources)
        scripts = _of(directives, "script-src-elem", "script-src")
        if scripts is not None:
            found += [_shown(each) for each in page.tags if not _may_run(scripts, each, page)]
        handlers = _of(directives, "script-src-attr", "script-src")
        if page.handlers and handlers is not None and not (_inline(handlers) or "'unsafe-hashes'" in handlers):
            found.append("an on… attribute")
        connects = _of(directives, "connect-src")
        if connects is not None and not any(_names(each, page.of_socket(), page) for each in connects):
            found.append("the connection to socket.io (connect-src)")
        images = _of(directives, "img-src")
        if has_data_images and images is not None and "data:" not in map(str.lower, images):
            found.append("a QR code as a data: image (img-src)")
    return list(dict.fromkeys(found))


def _of(directives: dict[str, list[str]], *names: str) -> list[str] | None:
    """By the first of these directives that is there; None where none is."""
    return next((directives[name] for name in (*names, "default-src") if name in directives), None)


def _shown(attributes: dict[str, str]) -> str:
    return " ".join(["<script", *(f'{name}="{value}"' for name, value in attributes.items())]) + ">"


def _inline(sources: list[str]) -> bool:
    """A nonce, a digest or 'strict-dynamic' switches 'unsafe-inline' off."""
    off = any(each.startswith(("'nonce-", "'sha")) or each == "'strict-dynamic'" for each in sources)
    return "'unsafe-inline'" in sources and not off


def _may_run(sources: list[str], attributes: dict[str, str], page: Page) -> bool:
    if f"'nonce-{attributes.get('nonce')}'" in sources:
        return True
    if not attributes.get("src"):
        return _inline(sources) or any(each.startswith("'sha") for each in sources)
    return "'strict-dynamic'" not in sources and any(_names(each, page.at(attributes["src"]), page) for each in sources)


# A scheme in a policy -> those that it allows. (CSP 3 lets `wss:` allow https too; Chromium does not.)
UPGRADES = {"http": ("http", "https"), "ws": ("ws", "wss"), "https": ("https", "wss")}


def _names(source: str, address: str, page: Page) -> bool:
    """Does an expression of a policy allow the address? Paths in it are not compared."""
    source, parts = source.lower(), urlsplit(address)
    if source in ("*", "'self'"):
        return source == "*" or _origin(address).partition("://")[2] == page.origin.partition("://")[2]
    is_scheme = re.fullmatch(r"[a-z][a-z0-9+.-]*:", source)
    scheme, _, named = (source[:-1], "", "*") if is_scheme else source.rpartition("://")
    name, _, port = named.partition("/")[0].partition(":")
    host = parts.hostname or ""
    fits = name == "*" or (host.endswith(name[1:]) if name.startswith("*.") else host == name)
    allowed = UPGRADES.get(scheme or "https", (scheme or "https",))
    return fits and port in ("", "*", str(parts.port or 443)) and parts.scheme in allowed


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

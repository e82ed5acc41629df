"""Every path goes through nginx as it is: what comes back is what the API gives on its own port."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

from settings import Settings
from tests.verify.checks import ENGINE, STRUCTURE, is_landing_page, through_nginx, timeouts
from tests.verify.plugin import DEPLOY, PASS_ON, Unfit, component, needs
from tests.verify.target import QUESTIONS, Answer, Answers
from tests.verify.test_site import RELOAD

PATHS = ("/api/", "/auth/", "/callback/", "/marketplace/", "/socket.io/", "/webhook/")
TOO_LONG = 431  # what Node answers to the questions that are too long
OWN_LIMIT = (400, 414)  # nginx's, to a header or a line that is too long for its own buffers
# nginx's status -> what it does, and what to do in its location
OF_NGINX = {
    403: ("nginx refuses it", "remove `limit_except` and `deny` from it"),
    405: ("nginx refuses the method", "have it pass every method"),
    413: ("the body is too large for nginx", "write `client_max_body_size 1m;` there"),
    429: ("nginx limits the rate", "remove `limit_req` from it"),
    502: ("nginx passes it to an address where nothing answers", "correct the address of its `proxy_pass`"),
    503: ("nginx answers 503 itself", "remove `return 503` from it"),
    504: ("nginx passes it to an address where nothing answers", "correct the address of its `proxy_pass`"),
}


@component("nginx", otherwise=PASS_ON)
@pytest.mark.parametrize("prefix", PATHS)
def test_nginx_passes_on(host: Host, answers: dict[str, Answers], settings: Settings, prefix: str) -> None:
    """Asked for what no route has, or with a token that is not valid, so that nothing happens: the API's own refusal
    must come through, method, header, query and a webhook's body included."""
    works = prefix != "/socket.io/" or answers["socket"].site.body.startswith(ENGINE)
    needs(works, "the handshake does not get through nginx")
    for name in [name for name in QUESTIONS if name.startswith(prefix)]:
        direct, site = answers[name].direct, through_nginx(host, answers, name)
        needs(direct.status, f"the API itself does not answer {QUESTIONS[name]['path']}")
        kind = name.partition(" ")[2]
        if site.limited:
            raise Unfit(
                f"nginx limits the rate: of a few requests for {prefix} at once it answered some with {site.limited}",
                f"in `location {prefix}` of {settings.nginx_site}: remove `limit_req`, or raise its burst; {RELOAD}",
            )
        what, remedy = _lost(kind, direct, site) or _answered(site, direct, is_landing_page(site, answers))
        if what:
            method = QUESTIONS[name].get("method", "GET")
            path = QUESTIONS[name]["path"].partition("?")[0]
            raise Unfit(
                f"{method} {path} answers {direct.status} on the API's port, but {site.status} through nginx: {what}",
                f"in `location {prefix}` of {settings.nginx_site}: {remedy}; {RELOAD}" if remedy else DEPLOY,
            )


def _lost(kind: str, direct: Answer, site: Answer) -> tuple[str, str] | None:
    if kind not in ("query", "Authorization"):
        return None
    if direct.status != TOO_LONG or site.status in (TOO_LONG, *OWN_LIMIT):
        return "", ""
    if kind == "query":
        return "the query is lost", "have `proxy_pass` end after the port, or with $is_args$args"
    return (
        "the header Authorization is lost",
        "remove `proxy_set_header Authorization` and `proxy_pass_request_headers`",
    )


def _answered(site: Answer, direct: Answer, landing: bool) -> tuple[str, str]:
    """What nginx does instead, and what to do; nothing where it passes on what the API says."""
    if landing:
        return "nginx serves the landing page", ""
    if (site.status, site.type, site.body) == (direct.status, direct.type, direct.body):
        return "", ""
    return OF_NGINX.get(site.status, ("nginx answers itself", "pass it to the API"))


IDLE = 30  # seconds; socket.io's server pings every 25


@component("nginx", "remove `proxy_read_timeout` from nginx's `location` for /socket.io/ (60 s is the default)")
def test_nginx_keeps_an_idle_websocket(host: Host) -> None:
    """To wait for it would take half a minute: it is read in the configuration, of which only the structure is sent."""
    lines = host.run(STRUCTURE).stdout.splitlines()
    short = [seconds for seconds in timeouts(lines) if seconds < IDLE]
    assert not short, f"nginx ends a WebSocket that was idle for {short[0]:g} s, and socket.io's pings are rarer"


@component("nginx", f"leave one `server` in that upstream, end the other copy; {RELOAD}")
def test_nginx_asks_one_api(host: Host, settings: Settings) -> None:
    """A WhatsApp session, and one of socket.io, is in the memory of one process."""
    parts = r"(upstream\s[^{]*\{|server\s[^;{]*;|\})"
    lines = host.run("nginx -T 2>/dev/null | sed 's/#.*//' | grep -oE %s", parts).stdout.splitlines()
    for name, servers in _upstreams(lines).items():
        if f"127.0.0.1:{settings.api_port}" in servers:
            assert len(servers) < 2, f"nginx divides the requests of upstream {name} between {' and '.join(servers)}"


def _upstreams(lines: list[str]) -> dict[str, list[str]]:
    """Those in turn; neither a spare one nor one that is out of use."""
    found: dict[str, list[str]] = {}
    name = ""
    for words in map(str.split, lines):
        if words[0] == "upstream":
            name = words[1].rstrip("{")
        elif words[0] == "}":
            name = ""
        elif name and not {"backup", "down"} & {word.rstrip(";") for word in words[2:]}:
            address = re.sub(r"^(localhost|\[::1\])", "127.0.0.1", words[1].rstrip(";"))
            found[name] = list(dict.fromkeys([*found.get(name, []), address]))
    return found

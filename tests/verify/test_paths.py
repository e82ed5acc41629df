"""Every path goes through nginx as it is: what comes back is what the API gives on its own port."""

from __future__ import annotations

import re

import pytest
from testinfra.host import Host

from settings import Settings
from tests.verify.checks import ENGINE, is_landing_page, through_nginx
from tests.verify.plugin import DEPLOY, PASS_ON, Unfit, component, needs
from tests.verify.target import PATHS, QUESTIONS, Answer, Answers, Passed
from tests.verify.test_site import RELOAD

TOO_LONG = 431  # what Node answers to the questions that are too long
SPARE = 5  # seconds, for a ping to arrive
OWN_LIMIT = (400, 414)  # nginx's, to a header or a line that is too long for its own buffers
# nginx's status -> what it does, and what to do in its location
OF_NGINX = {
    403: ("nginx refuses it", "remove `limit_except`, `deny` and `return 403` from it"),
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
    if (site.status, site.type) == (direct.status, direct.type) and (site.varies or site.body == direct.body):
        return "", ""
    return OF_NGINX.get(site.status, ("nginx answers itself", "pass it to the API"))


@component("nginx")
def test_nginx_keeps_an_idle_websocket(
    answers: dict[str, Answers], passed: dict[str, list[Passed]], settings: Settings
) -> None:
    """To wait for it would take half a minute. The server pings as often as it says in its handshake."""
    pings = re.search(r'"pingInterval":(\d+)', answers["socket"].direct.body)
    needs(pings, "the API's handshake does not say how often it pings")
    often = int(pings[1]) / 1000 if pings else 0
    for each in passed.get("/socket.io/", []):
        if each.seconds < often + SPARE:
            raise Unfit(
                f"nginx ends a WebSocket that was idle for {each.seconds:g} s, and socket.io pings every {often:g} s",
                f"in `location /socket.io/` of {settings.nginx_site}: `proxy_read_timeout {max(60, 2 * often):.0f}s;`"
                f", replacing any other; {RELOAD}",
            )


@component("nginx")
def test_nginx_asks_one_api(host: Host, passed: dict[str, list[Passed]], settings: Settings) -> None:
    """A WhatsApp session, and one of socket.io, is in the memory of one process."""
    own = f"127.0.0.1:{settings.api_port}"
    for path, servers in passed.items():
        for each in servers:
            if len(each.addresses) > 1 and own in each.addresses:
                raise Unfit(
                    f"nginx splits the requests for {path} between {' and '.join(each.addresses)}",
                    f"leave only `server {own};` in that upstream, end the other copy; {RELOAD}",
                )
            other = next((place for place in each.addresses if place.startswith("127.0.0.1:")), own)
            if own not in each.addresses and other != own and _is_node(host, other):
                raise Unfit(
                    f"nginx passes {path} to a second copy at {other}, and the API is at {own}",
                    f"in `location {path}` of {settings.nginx_site}: proxy_pass http://{own}; {RELOAD}",
                )


def _is_node(host: Host, address: str) -> bool:
    """Is it a Node that listens there, and not a cache or another nginx, which may stand between?"""
    port = address.rpartition(":")[2]
    pids = f"$(ss -Hltnp 'sport = :{port}' | grep -o 'pid=[0-9]*' | cut -d= -f2)"
    return bool(host.run(f"for pid in {pids}; do readlink /proc/$pid/exe; done | grep '/node$'").succeeded)

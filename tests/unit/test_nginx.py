from __future__ import annotations

import re
from dataclasses import replace

import pytest

from operations import marked, nginx
from operations.nginx import Site
from operations.routing import files_of
from remote.files import content
from remote.files import text as as_text
from remote.readings import Configuration
from settings import BadInput
from tests.unit.conftest import ROOT

OURS = Site("a.example", "a.example", "/opt/ai-admin", 3000, True)
SITE = b"""server {
    listen 80;
    server_name a.example www.a.example;
    return 301 https://$host$request_uri;
}
server {
    listen 443 ssl;
    server_name a.example www.a.example;
    location / {
        try_files $uri /index.html;
    }
}
"""
ALL = list(nginx.PATHS)


AVAILABLE, ENABLED = "/etc/nginx/sites-available/a.example", "/etc/nginx/sites-enabled/a.example"
LINK = {ENABLED: AVAILABLE}
MAIN = b"events {}\nhttp {\n  include /etc/nginx/conf.d/*.conf;\n  include sites-enabled/*;\n}\n"


def fact(  # noqa: PLR0913 -- each is something that differs between hosts
    enabled: bytes | None = SITE,
    *,
    links: dict[str, str] = LINK,
    available: bytes | None = None,
    others: dict[str, bytes] | None = None,
    main: bytes = MAIN,
    certificate: bool = True,
) -> Configuration:
    """A host whose nginx loads `enabled` and these other files; a site that is a link has the same text at its end."""
    files = {"/etc/nginx/nginx.conf": main, **(others or {}), **({} if enabled is None else {ENABLED: enabled})}
    known = enabled if links else available
    return {
        "dump": as_text(b"".join(b"# configuration file %b:\n%b\n" % (n.encode(), t) for n, t in files.items())),
        "links": links,
        "available": None if known is None else as_text(known),
        "certificate": certificate,
        "running": True,
        "stale": False,
    }


def made(now: Configuration, site: Site = OURS) -> bytes:
    """The text that serves afterwards: a second time changes nothing, and every foreign byte stays."""
    change = nginx.desired(now, site)
    if change is None:
        return files_of(content(now["dump"]))[ENABLED]
    loaded = files_of(content(now["dump"]))
    old = loaded.get(change.link or change.file, change.old or change.new)
    assert nginx.without(change.new, "") == nginx.without(old, "")
    place = change.link or change.file
    links = {**now["links"], **({place: change.file} if change.link else {})}
    main = loaded.pop("/etc/nginx/nginx.conf")
    again = fact(None, links=links, others={**loaded, place: change.new}, main=main)
    assert nginx.desired(again, site) is None
    return change.new


def added(text: bytes, others: dict[str, bytes] | None = None) -> list[str]:
    """The locations that our block adds."""
    result = made(fact(text, others=others))
    block = b"".join(re.findall(rb">>> ai-admin-deploy.*?<<<", result, re.DOTALL))
    return [path for path in nginx.PATHS if re.search(rb"location (\^~ )?%b {" % path.encode(), block)]


def inside(*lines: bytes) -> bytes:
    """SITE with these lines in its TLS server."""
    return SITE.replace(b"    location / {", b"\n".join(lines) + b"\n    location / {")


# --- where


def test_blocks_are_the_first_and_the_last_of_the_tls_server() -> None:
    """The first: a `rewrite … last` of the server's would skip what comes after it."""
    start, opening, rest = SITE.partition(b"server {\n    listen 443 ssl;\n")
    first, _, text = made(fact()).removeprefix(start + b"server {\n").partition(b"    # <<< ai-admin-deploy\n")
    assert first.startswith(b"    # >>> ai-admin-deploy")
    assert b"\n    set $ai_admin_api 127.0.0.1:3000;\n    if (-e /run/ai-admin-waiting-room/3000-restarts) {\n" in first
    assert text.startswith(
        opening.removeprefix(b"server {\n") + rest.removesuffix(b"}\n") + b"    # >>> ai-admin-deploy"
    )
    assert text.endswith(b"    # <<< ai-admin-deploy\n}\n")
    assert text.count(b"proxy_pass http://$ai_admin_api;") == len(ALL)
    assert added(SITE) == ALL


@pytest.mark.parametrize(
    "listen",
    [
        *(b"443 ssl", b"443 ssl http2", b"[::]:443 ssl", b"127.0.0.1:443 ssl default_server", b"443"),
        *(b"443 quic reuseport;\n    listen 443 ssl", b"8443 ssl;\n    listen 443 ssl", b"[::]:443 ssl ipv6only=off"),
    ],
)
def test_what_is_a_tls_server(listen: bytes) -> None:
    assert added(SITE.replace(b"443 ssl", listen)) == ALL


@pytest.mark.parametrize(
    "text",
    [
        b"",
        SITE.replace(b"listen 443 ssl", b"listen 8080"),
        SITE.replace(b"listen 443 ssl", b"listen 8443 ssl"),
        SITE.replace(b"listen 443 ssl", b"listen 443 quic"),
        SITE.replace(b"www.a.example", b"").replace(b"a.example", b"b.example"),
        SITE.replace(b" a.example www", b" www"),
        SITE.replace(b"    listen 443 ssl;\n", b"    # listen 443 ssl;\n"),
    ],
)
def test_no_tls_server_for_the_domain(text: bytes) -> None:
    with pytest.raises(BadInput, match=r"no server on 443 for a\.example; run certbot first"):
        made(fact(text))


def test_the_right_one_of_several_servers() -> None:
    other = SITE.replace(b"a.example", b"b.example")
    text = made(fact(other + SITE))
    assert text.startswith(other)
    assert added(other + SITE) == ALL
    assert added(SITE + other) == ALL


def test_domain_is_the_second_name_or_quoted() -> None:
    assert added(SITE.replace(b"server_name a.example", b"server_name .A.example")) == ALL
    assert added(SITE.replace(b"a.example www.a.example", b"www.a.example a.example")) == ALL
    assert added(SITE.replace(b"server_name a.example", b'server_name "a.example"')) == ALL


def test_closing_brace_is_found_past_braces_that_are_none() -> None:
    odd = inside(
        b"    # } a comment with a brace }",
        b"    add_header X-A '}';",
        b'    add_header X-B "} {";',
        b"    location ~ ^/[0-9]{1,3}$ { return 204; }",
        b'    location ~ "^/x{2}$" { return 204; }',
        b"    location /nested/ { location /nested/a/ { return 204; } }",
        b"    if ($host = x) { return 444; }",
        b"    set $a ${host}b;",
    )
    assert added(odd) == ALL
    assert made(fact(odd)).endswith(b"    # <<< ai-admin-deploy\n}\n")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"server { listen 443 ssl; server_name a.example; }\n", 1),
        (b"server {\n  listen 443 ssl;\n  server_name a.example;\n  location / { return 204; } }\n", 4),
        (b"server {\n  listen 443 ssl;\n  server_name a.example;\n} # end\n", 4),
    ],
)
def test_closing_brace_must_have_its_own_line(text: bytes, line: int) -> None:
    with pytest.raises(
        BadInput, match=f"{ENABLED} line {line}: put the closing brace of the server on a line of its own"
    ):
        made(fact(text))


def test_braces_set_otherwise() -> None:
    assert added(SITE.replace(b"server {", b"server\n{")) == ALL
    text = SITE.replace(b"}\nserver {", b"} server {")
    assert added(text) == ALL
    assert made(fact(text)).endswith(b"    # <<< ai-admin-deploy\n}\n")


def test_crlf_and_bytes_that_are_not_utf8() -> None:
    text = inside("    # комментарий".encode(), b"    # caf\xe9").replace(b"\n", b"\r\n")
    assert added(text) == ALL
    result = made(fact(text))
    assert result.count(b"\n") == result.count(b"\r\n")


# --- what it lacks

API = b"proxy_pass http://localhost:3000;"
UPGRADED = (
    API + b' proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
)


def test_locations_that_are_there_stay_the_operators() -> None:
    site = inside(b"    location /api/ { proxy_pass http://localhost:4000; }", b"    location ^~ /auth { return 204; }")
    assert added(site) == [path for path in ALL if path not in ("/api/", "/auth/")]


def test_a_location_that_another_takes_over_is_not_written_twice() -> None:
    site = inside(b"    location ~ ^/a { return 204; }", b"    location /api/ { return 204; }")
    assert added(site) == [path for path in ALL if path != "/api/"]


def test_a_block_that_nothing_needs_any_more_goes() -> None:
    block = made(fact(SITE.replace(b"server {\n    listen 443", b"server { listen 443"))).partition(b"    # >>>")[2]
    change = nginx.desired(fact(everything(UPGRADED).removesuffix(b"}\n") + b"    # >>>" + block), OURS)
    assert change and change.new == everything(UPGRADED)
    assert change.lines == [f"nginx: our block in {ENABLED} is removed: the site no longer needs it"]


def test_nothing_is_added_where_nothing_lacks() -> None:
    site = inside(*(b"    location %b { %b }" % (path.encode(), UPGRADED) for path in ALL))
    assert added(site) == []
    assert made(fact(site)) == site


@pytest.mark.parametrize(
    ("location", "serves"),
    [
        (b"~ ^/api/", True),
        (b"~* ^/API/", True),
        (b"~ ^/API/", False),
        (b"~ ^/(api|auth)/", True),
        (b"~ \\.php$", False),
        (b"~ (?<n>^/api/)", False),  # not Python's idea of a regular expression: ours is added, and the prefix loses
        (b"= /api/", False),
        (b"/api", True),
        (b"/api/v1/", False),
        (b"@api", False),
        (b"/", False),
    ],
)
def test_what_serves_a_path(location: bytes, serves: bool) -> None:
    site = inside(b"    location " + location + b" { return 204; }").replace(b"    location / {", b"    location /x {")
    assert ("/api/" in added(site)) is not serves


def test_commented_location_is_none() -> None:
    assert "/api/" in added(inside(b"    # location /api/ { return 204; }"))


def test_location_of_another_server_is_none() -> None:
    other = SITE.replace(b"a.example", b"b.example").replace(b"location /", b"location /api/")
    assert "/api/" in added(other + SITE)


def test_included_locations_count() -> None:
    others = {
        "/etc/nginx/snippets/api.conf": b"location /api/ { return 204; }\ninclude snippets/more-*.conf;\n",
        "/etc/nginx/snippets/more-1.conf": b"location /auth/ { return 204; }\n",
        "/etc/nginx/snippets/other.conf": b"location /callback/ { return 204; }\n",
        "/etc/nginx/snippets/below/x.conf": b"location /webhook/ { return 204; }\n",
    }
    lacking = added(inside(b"    include snippets/api.conf;"), others)
    assert lacking == ["/socket.io/", "/marketplace/", "/callback/", "/webhook/"]
    assert added(inside(b"    include /etc/nginx/snippets/*.conf;"), others) == [
        "/socket.io/",
        "/marketplace/",
        "/webhook/",
    ]


def everything(to: bytes, server: bytes = b"") -> bytes:
    """SITE whose `location /` does this."""
    start = SITE.index(b"    location / {")
    return SITE[:start] + server + b"    location / {\n        " + to + b"\n    }\n}\n"


@pytest.mark.parametrize(
    "to",
    [
        UPGRADED,
        UPGRADED.replace(b"localhost:3000", b"[::1]:3000"),
        UPGRADED.replace(b":3000", b":3000/"),
        UPGRADED.replace(b"http://localhost:3000", b"$api"),
        UPGRADED.replace(b"localhost:3000", b"ai_admin"),
        UPGRADED.replace(b'"upgrade"', b"$connection_upgrade"),
        UPGRADED.replace(b"Upgrade", b"upgrade").replace(b'"upgrade"', b"Upgrade"),
        b"try_files $uri @api; } location @api { " + UPGRADED,
        b"} location ~ ^/(.*)$ { " + UPGRADED,
        UPGRADED + b" } location ^~ /s { } location /so { " + UPGRADED,
        b"location /socket.io/ { " + UPGRADED + b" } " + API,
        b"location ~ ^/socket { " + UPGRADED + b" } " + API + b" } location ~ ^/so { return 204;",
        UPGRADED + b" } location ^~ /socket.io/ { " + UPGRADED + b" } location ~ io { return 204;",
    ],
)
def test_nothing_is_added_to_a_site_that_passes_everything(to: bytes) -> None:
    upstream = {"/etc/nginx/conf.d/a.conf": b"upstream ai_admin { server 127.0.0.1:3000; keepalive 8; }\n"}
    assert added(everything(to), upstream) == []


@pytest.mark.parametrize(
    ("to", "lacking"),
    [
        (API, ["/socket.io/"]),
        (b"try_files $uri @api; } location @api { " + API, ["/socket.io/"]),
        (UPGRADED.replace(b'"upgrade"', b'""'), ["/socket.io/"]),
        (UPGRADED.replace(b"1.1", b"1.0"), ["/socket.io/"]),
        (UPGRADED.replace(b":3000", b":4000"), ALL),
        (UPGRADED.replace(b":3000", b":3000/app/"), ALL),
        (UPGRADED.replace(b"localhost:3000", b"ai_admin"), ALL),
        (UPGRADED.replace(b"localhost:3000", b"unix:/run/3000"), ALL),
        (b"} location /socket.io/v1/ { return 204; } location / { try_files $uri /index.html;", ALL),
        (b"} location ~ ^/ { try_files $uri /index.html;", ALL),
        (UPGRADED + b" } location ~ ^/(?!api|auth) { try_files $uri /i;", [*ALL[:1], *ALL[3:]]),
    ],
)
def test_what_a_location_for_more_does_not_pass(to: bytes, lacking: list[str]) -> None:
    upstream = {"/etc/nginx/conf.d/a.conf": b"upstream ai_admin { server 127.0.0.1:4000; }\n"}
    assert added(everything(to), upstream) == lacking


def test_headers_of_outer_levels_count_where_the_location_has_none() -> None:
    headers = b"    " + UPGRADED.removeprefix(API) + b"\n"
    assert added(everything(API, server=headers)) == []
    assert added(everything(API + b" proxy_set_header Host $host;", server=headers)) == ["/socket.io/"]


def test_our_locations_lose_to_no_other() -> None:
    """But a regular expression for that very path is meant to come first."""
    text = made(
        fact(
            inside(
                b"    location ~ ^/api/(up|down)load { return 204; }",
                b"    location ~ ^/oauth/ { return 204; }",
                b"    location ~ \\.js$ { return 204; }",
            )
        )
    )
    assert b"location ^~ /socket.io/ {" in text
    assert b"location ^~ /auth/ {" in text
    assert b"location /api/ {" in text


# --- requests to the operator's locations wait too

HOST = b"proxy_set_header Host $host;"
TO = b"proxy_pass http://$ai_admin_api;"


@pytest.mark.parametrize(
    ("own", "new"),
    [
        (API, TO + b" # ai-admin-deploy: was http://localhost:3000"),
        (API + b" # API", TO + b" # API # ai-admin-deploy: was http://localhost:3000"),
        (
            b"proxy_pass\thttp://127.0.0.1:3000 ;",
            b"proxy_pass\thttp://$ai_admin_api ; # ai-admin-deploy: was http://127.0.0.1:3000",
        ),
        (b"proxy_pass http://[::1]:3000;", TO + b" # ai-admin-deploy: was http://[::1]:3000"),
        (b"if ($a) { %b }" % API, b"if ($a) { %b } # ai-admin-deploy: was http://localhost:3000" % TO),
        (API.replace(b"3000;", b"3000/;"), None),  # another path would be passed on
        (API.replace(b"3000", b"4000"), None),
        (API.replace(b"localhost", b"api.example"), None),
        (API.replace(b"http:", b"https:"), None),
        (b"proxy_pass\n http://localhost:3000;", None),
    ],
)
@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_an_operators_line_passes_through_the_waiting_room(own: bytes, new: bytes | None, eol: bytes) -> None:
    own = own.replace(b"\n", eol)
    site = inside(b"    location /own/ {", b"        " + own, b"        " + HOST, b"    }")
    site = re.sub(rb"\r?\n", eol, site)
    result = made(fact(site))
    assert result.count(b"        %b%b" % (new or own, eol)) == 1 or b"\n" in own
    assert result.count(b"# ai-admin-deploy: was") == bool(new)
    change = nginx.desired(fact(site), OURS)
    assert change and ("becomes http://$ai_admin_api" in "".join(change.lines)) is bool(new)
    left = nginx.desired(fact(result), replace(OURS, change_proxy_pass=False))
    assert (left.new if left else result).count(own) == 1, "the setting puts it back"


def test_a_line_that_would_mean_something_else_stays() -> None:
    """Without a Host header of its own, nginx sends the name in proxy_pass; an included file may be others' too."""
    own = {"/etc/nginx/own.conf": b"location /a/ {\n%b\n%b\n}\n" % (API, HOST)}
    two = b"    location /b/ { %b %b } location /c/ { %b %b }" % (API, HOST, API, HOST)
    refused = b"    location /d/ { %b %b proxy_redirect default; }" % (API, HOST)
    lines = [b"    location /own/ { %b }" % API, b"    include own.conf;", two, refused]
    result = made(fact(inside(*lines), others=own))
    assert b"was http" not in result


@pytest.mark.parametrize(
    "site",
    [
        SITE.replace(b"server {\n    listen 443", b"server { listen 443"),
        SITE.replace(b"server {\n    listen 443", b"server { location /x/ {\n    }\n    listen 443"),
        SITE.replace(b"    listen 443", b"    open_file_cache max=1000 inactive=20s;\n    listen 443"),
    ],
)
def test_where_nobody_can_wait(site: bytes) -> None:
    """The server's first line is not free; or nginx would take the sign that it saw a minute ago."""
    result = made(fact(site.replace(b"try_files $uri /index.html;", API + HOST)))
    assert b"$ai_admin_api" not in result
    assert result.count(b"proxy_pass http://127.0.0.1:3000;") >= 1


def test_a_cache_that_is_off_is_none() -> None:
    assert b"$ai_admin_api" in made(fact(SITE.replace(b"    listen 443", b"    open_file_cache off;\n    listen 443")))


def test_the_host_header_may_be_inherited() -> None:
    result = made(fact(inside(b"    " + HOST, b"    location /own/ { %b }" % API)))
    assert b"was http" in result


def test_lines_are_changed_where_nothing_else_lacks() -> None:
    result = made(fact(everything(UPGRADED + b" " + HOST)))
    assert b"if (-e /run/ai-admin-waiting-room/3000-restarts) {" in result
    assert result.count(b"    location ") == 1
    assert nginx.without(result, "") == everything(UPGRADED + b" " + HOST)


# --- a location of the operator's for /socket.io/


def completed(location: bytes, **more: bytes) -> str:
    """What our block puts into it."""
    text = made(
        fact(
            inside(*(b"    " + line for line in location.split(b"\n"))).replace(
                b"server {", more.get("server", b"server {")
            )
        )
    )
    assert text.count(b"/socket") == 1, "not written a second time"
    block, _, after = text.decode().partition("/socket")[2].partition(marked.BEGIN)[2].partition(marked.END)
    assert after.lstrip().startswith("}")
    return " ".join(block.split("lost")[1].split()).removesuffix(" #")


BOTH_HEADERS = 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'


@pytest.mark.parametrize(
    "location", [b"/socket.io/", b"^~ /socket.io/", b"/socket.io", b"~ ^/socket\\.io/", b"= /socket.io/"]
)
def test_it_is_completed(location: bytes) -> None:
    assert completed(b"location %b {\n    %b\n}" % (location, API)) == f"proxy_http_version 1.1; {BOTH_HEADERS}"


@pytest.mark.parametrize(
    ("own", "outside", "expected"),
    [
        (b"proxy_http_version 1.1;", b"", BOTH_HEADERS),
        (b"", b"proxy_http_version 1.1;", BOTH_HEADERS),
        (b"proxy_set_header Host $host;", b"", f"proxy_http_version 1.1; {BOTH_HEADERS}"),
        (
            b"proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;",
            b"",
            'proxy_set_header Connection "upgrade";',
        ),
        (
            b"",
            b"proxy_http_version 1.0; proxy_set_header Host $host; proxy_set_header Connection '';"
            b" proxy_set_header X-A 'a; b';",
            f"proxy_http_version 1.1; proxy_set_header Host $host; proxy_set_header X-A 'a; b'; {BOTH_HEADERS}",
        ),
        (b"proxy_set_header A b;", b"proxy_set_header Host $host;", f"proxy_http_version 1.1; {BOTH_HEADERS}"),
    ],
)
def test_only_what_it_lacks_with_what_it_inherits(own: bytes, outside: bytes, expected: str) -> None:
    """The first proxy_set_header of a location ends what it inherits."""
    found = completed(b"location /socket.io/ {\n    %b %b\n}" % (API, own), server=b"server { %b" % outside)
    assert found == expected


def test_a_complete_one_stays() -> None:
    assert "/socket.io/" not in added(inside(b"    location /socket.io/ { " + UPGRADED + b" }"))


def test_completed_and_lacking_are_two_blocks() -> None:
    text = made(fact(inside(b"\tlocation /socket.io/ {\n\t\t" + API + b"\n\t}")))
    assert text.count(marked.BEGIN.encode()) == 3  # and the waiting room
    assert text.endswith(b"    }\n    # <<< ai-admin-deploy\n}\n")
    assert text.count(b"\n    location /") == 1, "all of ours are the server's own"
    assert b"\n\t    proxy_http_version 1.1;\n" in text
    assert b"location ^~ /webhook/ {" in text


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (
            b"/socket.io/ { proxy_pass http://localhost:4000; }",
            "line 9: this location does not pass /socket.io/ to the API on",
        ),
        (
            b"/socket.io/ { proxy_pass http://localhost:3000/; }",
            "line 9: this location does not pass /socket.io/ to the API on",
        ),
        (b"/socket.io/ { return 404; }", "line 9: this location does not pass /socket.io/ to the API on port 3000"),
        (b"~ /socket.io/ { return 404; }", "line 9: this location does not pass /socket.io/ to the API on port 3000"),
        (b"/socket.io/ { " + API + b" }", "line 9: put the closing brace of the location on a line of its own"),
        (
            b"/socket.io/ {\n" + API + b"proxy_set_header Connection '';\n}",
            "line 10: `proxy_set_header Connection '';` keeps W",
        ),
        (
            b"/socket.io/ {\n" + API + b"proxy_http_version 1.0;\n}",
            "line 10: `proxy_http_version 1.0;` keeps WebSockets",
        ),
        (
            b"/x {\n}\ninclude ws.conf;",
            r"ws\.conf line 1: .* put into it: proxy_http_version 1\.1; proxy_set_header Upgr",
        ),
        (
            b"~ / { }\nlocation /socket.io/ { }",
            "line 9 takes /socket.io/ before .* line 10; write there: location \\^~ /so",
        ),
    ],
)
def test_what_cannot_be_completed_is_refused(location: bytes, message: str) -> None:
    others = {"/etc/nginx/ws.conf": b"location /socket.io/ { " + API + b" }\n"}
    with pytest.raises(BadInput, match=message):
        nginx.desired(fact(inside(b"location " + location), others=others), OURS)


def test_our_block_follows_the_settings() -> None:
    old = made(fact())
    new = made(fact(old), replace(OURS, api_port=3001))
    assert new == old.replace(b":3000", b":3001").replace(b"/3000", b"/3001")


def test_headers_of_the_requirements() -> None:
    text = made(fact()).decode()
    for line in (
        *(
            "proxy_http_version 1.1;",
            "proxy_set_header Upgrade $http_upgrade;",
            'proxy_set_header Connection "upgrade";',
        ),
        *("proxy_set_header Host $host;", "proxy_set_header X-Real-IP $remote_addr;"),
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    ):
        assert line in text.partition("location ^~ /socket.io/")[2].partition("}")[0]


# --- which file


def test_what_serves_is_edited_where_it_is() -> None:
    for name in ("conf.d/own.conf", "sites-enabled/other-name"):
        change = nginx.desired(fact(None, links={}, others={f"/etc/nginx/{name}": SITE}), OURS)
        assert change and (change.file, change.link) == (f"/etc/nginx/{name}", "")
        assert change.old == SITE and marked.without(change.new, "") == SITE


def test_a_server_in_an_included_file() -> None:
    main = b"http { include /etc/nginx/vhosts.conf; }\n"
    inner = {"/etc/nginx/vhosts.conf": b"include vhosts/*;\n", "/etc/nginx/vhosts/1": SITE}
    change = nginx.desired(fact(None, links={}, others=inner, main=main), OURS)
    assert change and change.file == "/etc/nginx/vhosts/1"


def test_a_link_stays_one_wherever_it_ends() -> None:
    change = nginx.desired(fact(SITE, links={ENABLED: "/etc/nginx/elsewhere/site"}), OURS)
    assert change and (change.file, change.link) == (ENABLED, "")
    with pytest.raises(
        BadInput, match=r"/srv/site serves a\.example, but only what is below /etc/nginx can be rolled back"
    ):
        nginx.desired(fact(SITE, links={ENABLED: "/srv/site"}), OURS)


def test_a_copy_becomes_a_link() -> None:
    """Also one that lacks nothing."""
    complete = made(fact(inside(b"    # only in the copy")))
    for copy in (inside(b"    # only in the copy"), complete):
        change = nginx.desired(fact(copy, links={}, available=SITE), OURS)
        assert change and (change.file, change.link) == (AVAILABLE, ENABLED)
        assert (change.old, change.replaced) == (SITE, copy)
        assert change.new == complete


def test_the_first_of_the_name_serves() -> None:
    others = {"/etc/nginx/conf.d/own.conf": SITE}
    change = nginx.desired(fact(SITE, links={}, available=SITE, others=others), OURS)
    assert change and change.file == "/etc/nginx/conf.d/own.conf"
    assert change.lines[2:] == [
        f"nginx: {ENABLED} line 6 also has the name a.example, but nginx uses the first one that does; left as it is"
    ]


def test_a_block_in_a_file_that_does_not_serve_stays() -> None:
    others = {f"{ENABLED}.bak": made(fact())}
    change = nginx.desired(fact(others=others), OURS)
    assert change and change.file == ENABLED


def test_the_server_on_443_is_the_site() -> None:
    other = SITE[SITE.index(b"server {\n    listen 443") :].replace(b"443", b"8443")
    assert made(fact(other + SITE)).startswith(other)
    assert added(other + SITE) == ALL


def test_two_domains_in_one_file() -> None:
    """Each has a deploy of its own, and neither takes out what is the other's."""
    other = replace(OURS, domain="b.example", api_port=3100)
    text = made(fact(SITE + SITE.replace(b"a.example", b"b.example").replace(b"3000", b"3100")))
    both = made(fact(text), other)
    assert both.count(b"location ^~ /socket.io/") == 2
    assert both.count(b"set $ai_admin_api 127.0.0.1:3000;") == both.count(b"set $ai_admin_api 127.0.0.1:3100;") == 1
    assert nginx.desired(fact(both), OURS) is None and nginx.desired(fact(both), other) is None


def test_a_server_for_each_address() -> None:
    """All that answer for the domain are the site."""
    six = SITE[SITE.index(b"server {\n    listen 443") :].replace(b"443", b"[::]:443")
    assert made(fact(SITE + six)).count(b"location ^~ /socket.io/") == 2
    with pytest.raises(
        BadInput, match=f"conf.d/six.conf and {ENABLED} serve a.example, at different addresses; put bo"
    ):
        nginx.desired(fact(SITE, others={"/etc/nginx/conf.d/six.conf": six}), OURS)
    # requests do not wait then: lines of both files would change, and one file at a time does
    complete = six.replace(b"try_files $uri /index.html;", UPGRADED + b" proxy_set_header Host $host;")
    change = nginx.desired(fact(SITE, others={"/etc/nginx/conf.d/six.conf": complete}), OURS)
    assert change and change.file == ENABLED
    assert change.new.count(b"proxy_pass http://127.0.0.1:3000;") == len(ALL) and b"$ai_admin" not in change.new


def test_a_site_that_is_not_enabled() -> None:
    change = nginx.desired(fact(None, links={}, available=SITE), OURS)
    assert change and (change.file, change.link, change.replaced) == (AVAILABLE, ENABLED, None)
    assert marked.without(change.new, "") == SITE


def test_without_a_site_the_whole_is_rendered() -> None:
    now = fact(None, links={})
    assert b"ssl_certificate /etc/letsencrypt/live/a.example/fullchain.pem;" in made(now)
    with pytest.raises(BadInput, match=r"neither a site a\.example nor a certificate for a\.example; run"):
        nginx.desired(fact(None, links={}, certificate=False), OURS)
    with pytest.raises(BadInput, match=r"nginx\.conf does not load /etc/nginx/sites-enabled/a\.example; put"):
        nginx.desired(fact(None, links={}, main=b"http { include conf.d/*.conf; }\n"), OURS)
    plain = {"/etc/nginx/conf.d/own.conf": SITE.replace(b"443 ssl", b"8080")}
    with pytest.raises(BadInput, match=r"conf\.d/own\.conf has no server on 443 for a\.example; run certbot first"):
        nginx.desired(fact(None, links={}, others=plain), OURS)


def test_the_rehearsal_site() -> None:
    site = (ROOT / "tests/rehearsal/root/etc/nginx/sites-available/ai-admin.app").read_bytes()
    result = made(fact(site), replace(OURS, domain="ai-admin.app"))
    assert result.count(b"location ") == site.count(b"location ") + 2  # /socket.io/, /webhook/
    assert result.count(b" # ai-admin-deploy: was http://localhost:3000\n") == site.count(b"http://localhost:3000")
    assert b"proxy_pass http://localhost" not in result


# --- a server that answers without the name


@pytest.mark.parametrize("name", ["*.example", "a.*", r"~^a\.(example|ru)$", "_", ""])
def test_the_domain_is_not_taken_from_a_server_that_answers_for_it(name: str) -> None:
    """Its other locations, limits and access rules would be gone for the domain."""
    server_name = f"server_name {name};" if name else ""
    site = b"server {\n    listen 443 ssl default_server;\n    %b\n    location /api/ { %b }\n}\n"
    others = {"/etc/nginx/conf.d/own.conf": site % (server_name.encode(), API)}
    now = fact(None, links={}, others=others)
    with pytest.raises(BadInput, match=r"own\.conf line 1 answers for a\.example without naming it"):
        nginx.desired(now, OURS)


def test_another_site_does_not_stand_in_for_it() -> None:
    """It has a name of its own, or passes nothing to the API."""
    for name, port in ((b"other.example", b"3000"), (b"_", b"4000")):
        site = b"server { listen 443 ssl; server_name %b; location / { proxy_pass http://localhost:%b; } }" % (
            name,
            port,
        )
        change = nginx.desired(fact(None, links={}, others={"/etc/nginx/conf.d/own.conf": site}), OURS)
        assert change and change.lines[0] == "nginx: write the whole site a.example"


def test_only_what_differs_is_told() -> None:
    """A line of one of our blocks was deleted by hand; the other, and the operator's line, are as they should be."""
    whole = made(fact(inside(b"    location /own/ {", b"        proxy_pass http://localhost:3000;", HOST, b"    }")))
    assert whole.count(b"# ai-admin-deploy: was") == 1
    line = next(each for each in whole.splitlines(keepends=True) if b"X-Real-IP" in each)
    change = nginx.desired(fact(whole.replace(line, b"", 1)), OURS)
    assert change and change.new == whole
    assert len(change.lines) == 1 and "our block in" in change.lines[0], change.lines
    spaced = whole.replace(b"    # >>> ", b"     # >>> ", 1)
    again = nginx.desired(fact(spaced), OURS)
    assert again and (again.new, again.lines) == (whole, [f"nginx: our block in {ENABLED} is rewritten"])

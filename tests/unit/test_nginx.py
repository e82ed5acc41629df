from __future__ import annotations

from dataclasses import replace

import pytest

from operations import marked, nginx
from operations.nginx import Site
from remote.files import text as as_text
from remote.readings import Configuration, File
from settings import BadInput
from tests.unit.conftest import ROOT

OURS = Site("a.example", "a.example", "/opt/ai-admin", 3000, 13000)
TARGET = "/etc/nginx/sites-available/a.example"
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


def file(kind: str, target: str | None = None, content: bytes | None = None) -> File:
    return {"type": kind, "target": target, "content": None if content is None else as_text(content)}


SYMLINK = file("symlink", TARGET)


def fact(
    available: bytes | None = SITE, enabled: File = SYMLINK, dump: bytes = b"", certificate: bool = True
) -> Configuration:
    known = file("absent" if available is None else "file", None, available)
    serving: File = {**enabled, "content": known["content"]} if enabled["type"] == "symlink" else enabled
    return {
        "dump": as_text(dump),
        "available": known,
        "enabled": serving,
        "certificate": certificate,
        "running": True,
        "stale": False,
    }


def added(text: bytes, dump: bytes = b"") -> list[str]:
    """The locations that our block adds; every foreign byte must stay, and a second time must change nothing."""
    now = fact(text, dump=dump)
    result = nginx.desired(now, OURS)
    assert marked.without(result, "") == marked.without(text, "")
    assert nginx.desired(fact(result, dump=dump), OURS) == result
    block = result[result.find(marked.BEGIN.encode()) :].partition(marked.END.encode())[0] if result != text else b""
    return [path for path in nginx.PATHS if f"location {path} {{".encode() in block]


def inside(*lines: bytes) -> bytes:
    """SITE with these lines in its TLS server."""
    return SITE.replace(b"    location / {", b"\n".join(lines) + b"\n    location / {")


# --- where


def test_block_is_the_last_of_the_tls_server() -> None:
    text = nginx.desired(fact(), OURS)
    assert text.startswith(SITE[: SITE.rindex(b"}\n")] + b"    # >>> ai-admin-deploy")
    assert text.endswith(b"    # <<< ai-admin-deploy\n}\n")
    assert added(SITE) == ALL


@pytest.mark.parametrize(
    "listen",
    [
        *(b"443 ssl", b"443 ssl http2", b"[::]:443 ssl", b"127.0.0.1:443 ssl default_server", b"443", b"8443 ssl"),
        b"443 quic reuseport;\n    listen 443 ssl",
    ],
)
def test_what_is_a_tls_server(listen: bytes) -> None:
    assert added(SITE.replace(b"443 ssl", listen)) == ALL


@pytest.mark.parametrize(
    "text",
    [
        b"",
        SITE.replace(b"listen 443 ssl", b"listen 8080"),
        SITE.replace(b"www.a.example", b"").replace(b"a.example", b"b.example"),
        SITE.replace(b" a.example www", b" www"),
        SITE.replace(b"    listen 443 ssl;\n", b"    # listen 443 ssl;\n"),
    ],
)
def test_no_tls_server_for_the_domain(text: bytes) -> None:
    with pytest.raises(BadInput, match=r"no server on 443 for a\.example; run certbot first"):
        nginx.desired(fact(text), OURS)


def test_the_right_one_of_several_servers() -> None:
    other = SITE.replace(b"a.example", b"b.example")
    text = nginx.desired(fact(other + SITE), OURS)
    assert text.startswith(other)
    assert added(other + SITE) == ALL
    assert added(SITE + other) == ALL


def test_domain_is_the_second_name_or_quoted() -> None:
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
    assert nginx.desired(fact(odd), OURS).endswith(b"    # <<< ai-admin-deploy\n}\n")


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
        BadInput, match=f"{TARGET} line {line}: put the closing brace of the server on a line of its own"
    ):
        nginx.desired(fact(text), OURS)


def test_braces_set_otherwise() -> None:
    assert added(SITE.replace(b"server {", b"server\n{")) == ALL
    text = SITE.replace(b"}\nserver {", b"} server {")
    assert added(text) == ALL
    assert nginx.desired(fact(text), OURS).startswith(text[: text.rindex(b"}\n")])


def test_crlf_and_bytes_that_are_not_utf8() -> None:
    text = inside("    # комментарий".encode(), b"    # caf\xe9").replace(b"\n", b"\r\n")
    assert added(text) == ALL
    result = nginx.desired(fact(text), OURS)
    assert result.count(b"\n") == result.count(b"\r\n")


# --- what it lacks


def test_locations_that_are_there_stay_the_operators() -> None:
    site = inside(b"    location /api/ { proxy_pass http://localhost:4000; }", b"    location ^~ /auth { return 204; }")
    assert added(site) == [path for path in ALL if path not in ("/api/", "/auth/")]


def test_nothing_is_added_where_nothing_lacks() -> None:
    site = inside(*(f"    location {path} {{ return 204; }}".encode() for path in ALL))
    assert added(site) == []
    assert nginx.desired(fact(site), OURS) == site


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
    dump = (
        b"# configuration file /etc/nginx/nginx.conf:\nevents {}\n"
        b"# configuration file /etc/nginx/snippets/api.conf:\nlocation /api/ { return 204; }\n"
        b"include snippets/more-*.conf;\n"
        b"# configuration file /etc/nginx/snippets/more-1.conf:\nlocation /auth/ { return 204; }\n"
        b"# configuration file /etc/nginx/snippets/other.conf:\nlocation /callback/ { return 204; }\n"
    )
    lacking = added(inside(b"    include snippets/api.conf;"), dump)
    assert lacking == ["/socket.io/", "/marketplace/", "/callback/", "/webhook/"]
    assert added(inside(b"    include /etc/nginx/snippets/*.conf;"), dump) == [
        "/socket.io/",
        "/marketplace/",
        "/webhook/",
    ]


def test_our_block_follows_the_settings() -> None:
    old = nginx.desired(fact(), OURS)
    new = nginx.desired(fact(old), replace(OURS, api_port=3001, waiting_room=13001))
    assert new == old.replace(b":3000;", b":3001;").replace(b":13000;", b":13001;")


def test_headers_of_the_requirements() -> None:
    text = nginx.desired(fact(), OURS).decode()
    for line in (
        *(
            "proxy_http_version 1.1;",
            "proxy_set_header Upgrade $http_upgrade;",
            'proxy_set_header Connection "upgrade";',
        ),
        *("proxy_set_header Host $host;", "proxy_set_header X-Real-IP $remote_addr;"),
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
    ):
        assert line in text.partition("location /socket.io/")[2].partition("}")[0]


# --- which text is the base


def test_what_serves_is_the_base() -> None:
    copy = inside(b"    # only in the copy")
    assert b"# only in the copy" in nginx.desired(fact(SITE, file("file", None, copy)), OURS)


def test_without_a_site_the_whole_is_rendered() -> None:
    now = fact(None, file("absent"))
    text = nginx.desired(now, OURS)
    assert b"ssl_certificate /etc/letsencrypt/live/a.example/fullchain.pem;" in text
    assert nginx.desired(fact(text), OURS) == text
    with pytest.raises(BadInput, match="run certbot first"):
        nginx.desired(fact(None, file("absent"), certificate=False), OURS)


@pytest.mark.parametrize(
    ("enabled", "linked"),
    [
        (SYMLINK, True),
        (file("symlink", "../sites-available/a.example"), True),
        (file("symlink", "../sites-available/other"), False),
        (file("file", None, SITE), False),
        (file("absent"), False),
    ],
)
def test_enabled_must_be_a_symlink(enabled: File, linked: bool) -> None:
    assert nginx.is_linked(fact(SITE, enabled), OURS) is linked


def test_the_rehearsal_site() -> None:
    site = (ROOT / "tests/rehearsal/root/etc/nginx/sites-available/ai-admin.app").read_bytes()
    result = nginx.desired(fact(site), replace(OURS, name="ai-admin.app", domain="ai-admin.app"))
    assert result.count(b"location ") == site.count(b"location ") + 3  # /socket.io/, /webhook/ and the waiting room

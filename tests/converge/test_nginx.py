"""nginx: a marked block in the operator's site, which serves all the while, and what runs is what is on disk."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from remote import waiting_room
from tests.converge.conftest import (
    BACKUPS,
    ENGINE,
    HANDSHAKE,
    STATE,
    converge,
    differing,
    read,
    refuse,
    replace,
    through_nginx,
    tree,
    without,
    write,
)
from tests.detection.conftest import altered, verify
from tests.rehearsal.host import Host
from tests.rehearsal.story import deploy

SITE = "ai-admin.app"
AVAILABLE, ENABLED = f"/etc/nginx/sites-available/{SITE}", f"/etc/nginx/sites-enabled/{SITE}"
BOTH = ["nginx site", "nginx reload"]
LANDING = "<!doctype html>"
BY_HAND = """location /socket.io/ {
        proxy_pass http://localhost:3000;
        proxy_http_version 1.1;
        proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection "upgrade";
    }
"""


@pytest.fixture(scope="module")
def deployed(host: Host) -> Host:
    """Everything but nginx is as it should be, and stays so: the whole of deploy.py then changes nginx alone."""
    host.ssh("cp -a /etc/nginx /root/nginx")
    converge(host)
    return host


@pytest.fixture(autouse=True)
def as_found(deployed: Host) -> None:
    deployed.ssh(
        f"rm -r /etc/nginx && cp -a /root/nginx /etc/nginx && rm -rf {BACKUPS}/* {STATE}/nginx.json"
        " && systemctl reset-failed nginx && systemctl restart nginx"  # systemd stops at five starts in 10 s
    )


def workers(host: Host) -> set[str]:
    return set(host.ssh("pgrep -f '^nginx: worker process$'").stdout.split())


def without_ours(text: bytes) -> bytes:
    """What the operator had, by other means than the bundle's."""
    found = re.sub(rb"(?m)^ *# >>> ai-admin-deploy(.|\n)*?# <<< ai-admin-deploy\n", b"", text)
    return re.sub(rb"(?m)\S+;(.*) # ai-admin-deploy: was (\S+)$", rb"\2;\1", found)


# --- the site


def test_the_copy_that_serves_is_the_base(host: Host) -> None:
    names, served, other = tree(host, "/etc/nginx"), read(host, ENABLED), read(host, AVAILABLE)
    assert served != other
    assert converge(host).changed == BOTH
    assert without_ours(read(host, AVAILABLE)) == served
    assert host.ssh(f"readlink {ENABLED}").stdout.strip() == AVAILABLE
    assert through_nginx(host, HANDSHAKE).startswith(ENGINE)
    assert tree(host, "/etc/nginx").keys() == names.keys(), "a backup in /etc/nginx would be loaded"
    deploys = host.ssh(f"ls {BACKUPS}").stdout.split()
    assert len(deploys) == 1
    assert read(host, f"{BACKUPS}/{deploys[0]}{AVAILABLE}") == other
    assert read(host, f"{BACKUPS}/{deploys[0]}{ENABLED}") == served


def test_linked_site_gets_its_block(host: Host) -> None:
    """As certbot and Debian leave it; and a link is right however it is spelled."""
    served = read(host, ENABLED)
    write(host, AVAILABLE, served)
    host.ssh(f"ln -sf ../sites-available/{SITE} {ENABLED} && systemctl reload nginx")
    assert converge(host).changed == BOTH
    assert without_ours(read(host, AVAILABLE)) == served
    assert host.ssh(f"readlink {ENABLED}").stdout.strip() == f"../sites-available/{SITE}"
    assert through_nginx(host, HANDSHAKE).startswith(ENGINE)


def test_location_by_hand_is_not_doubled(host: Host) -> None:
    replace(host, ENABLED, "location /webhook/", f"{BY_HAND}    location /webhook/")
    served = read(host, ENABLED)
    assert converge(host).changed == BOTH
    text = read(host, AVAILABLE)
    assert without_ours(text) == served
    assert text.count(b"location /socket.io/") + text.count(b"location ^~ /socket.io/") <= 1
    assert through_nginx(host, HANDSHAKE).startswith(ENGINE)


def test_location_in_an_included_file_counts(host: Host) -> None:
    write(host, "/etc/nginx/snippets/websocket.conf", BY_HAND)
    replace(host, ENABLED, "location /webhook/", "include snippets/web*.conf;\n\n    location /webhook/")
    served = read(host, ENABLED)
    assert converge(host).changed == BOTH
    text = read(host, AVAILABLE)
    assert without_ours(text) == served
    assert text.count(b"location /socket.io/") + text.count(b"location ^~ /socket.io/") <= 1
    assert through_nginx(host, HANDSHAKE).startswith(ENGINE)


def test_whole_site_where_there_is_none(host: Host) -> None:
    host.ssh(f"rm {AVAILABLE} {ENABLED} && systemctl restart nginx")
    assert through_nginx(host, "/") == ""
    assert converge(host).changed == BOTH
    assert through_nginx(host, HANDSHAKE).startswith(ENGINE)
    assert through_nginx(host, "/").lower().startswith(LANDING)
    assert through_nginx(host, "/api/status") == '{"api":"ok"}'
    assert through_nginx(host, "/callback/yclients") == '{"success":true}'
    assert '"status":"ok"' in through_nginx(host, "/marketplace/health-check")
    assert host.ssh(f"stat -c %a {AVAILABLE}").stdout.strip() == "644"


# --- the way to the waiting room


def test_who_is_not_to_wait_finds_the_api(host: Host) -> None:
    replace(host, ENABLED, "root /opt/ai-admin", "rewrite ^/old/(.*)$ /api/$1 last;\n    root /opt/ai-admin")
    assert converge(host).changed == BOTH
    assert through_nginx(host, "/old/status") == '{"api":"ok"}', "the operator's own rewrite does not skip our block"
    sign = waiting_room.SIGN.format(port=3000)
    host.ssh(f"mkdir -p -m 711 {waiting_room.FOLDER}")
    for target, held in (("/proc/1/task/1", True), ("/proc/1/task/999999", False)):
        host.ssh(f"ln -sfn {target} {sign}")
        is_served = through_nginx(host, "/api/status") == '{"api":"ok"}'
        assert is_served is not held, "a thread that is gone, as after a kill, holds nobody"
    host.ssh(f"rm {sign}; cp {AVAILABLE} {ENABLED}.bak; nginx -t")


# --- other shapes of a site

TLS = """
    ssl_certificate /etc/letsencrypt/live/ai-admin.app/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/ai-admin.app/privkey.pem;
    root /opt/ai-admin/public/landing;
    server_name ai-admin.app;
"""
LANDS = "    location / {\n        try_files $uri $uri/ /index.html;\n    }\n"
TO_API = "proxy_pass http://localhost:3000; proxy_set_header Host $host; proxy_set_header X-Forwarded-Proto $scheme;"
UPGRADES = 'proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'


def server(listen: str, *lines: str) -> str:
    return f"server {{\n    listen {listen};{TLS}" + "".join(f"    {line}\n" for line in lines) + "}\n"


PLAIN = "server {\n    listen 80;\n    listen [::]:80;\n    server_name ai-admin.app;\n    return 301 https://$host$request_uri;\n}\n"


@dataclass(frozen=True)
class Shape:
    """`texts` by file below /etc/nginx, in the place of the host's own; `edited` of them gets our blocks, which have
    these `locations` (`^~ /x`) or directives."""

    texts: dict[str, str]
    edited: str = ""
    blocks: tuple[str, ...] = ()
    address: str = "127.0.0.1"


SCRIPTS = "location ~* \\.(js|css)$ { root /nowhere; }"
EVERY_PATH = tuple(
    f"^~ {path}" for path in ("/socket.io/", "/api/", "/auth/", "/marketplace/", "/callback/", "/webhook/")
)
SHAPES = {
    "conf.d, and another server before it": Shape(
        {"conf.d/site.conf": PLAIN + server("8444 ssl", "return 404;") + server("443 ssl", SCRIPTS, LANDS)},
        "conf.d/site.conf",
        EVERY_PATH,
    ),
    "an include, its own /socket.io/ has no upgrade": Shape(
        {
            "conf.d/all.conf": "proxy_set_header X-Inherited yes;\ninclude vhosts/*/site;\n",
            "vhosts/one/site": PLAIN
            + server(
                "443 ssl",
                "location /socket.io/ {",
                "proxy_pass http://127.0.0.1:3000;",
                "}",
                f"location / {{ {TO_API} }}",
            ),
        },
        "vhosts/one/site",
        ("proxy_http_version 1.1;", "proxy_set_header X-Inherited yes;", "proxy_set_header Upgrade $http_upgrade;"),
    ),
    "another name, all goes to the API without upgrade": Shape(
        {"sites-enabled/site": PLAIN + server("443 ssl", f"location / {{ {TO_API} }}")},
        "sites-enabled/site",
        ("^~ /socket.io/",),
    ),
    "IPv6 only": Shape(
        {"sites-enabled/other": PLAIN + server("[::]:443 ssl ipv6only=on", LANDS)},
        "sites-enabled/other",
        EVERY_PATH,
        "[::1]",
    ),
    "all goes to an upstream, with upgrade": Shape(
        {
            "conf.d/upstream.conf": "upstream ai_admin { server 127.0.0.1:3000; }\n",
            "sites-enabled/site": PLAIN
            + server("443 ssl", "location / {", TO_API.replace("localhost:3000", "ai_admin"), UPGRADES, "}"),
        }
    ),
}


def plant(host: Host, texts: dict[str, str]) -> None:
    host.ssh(f"rm {AVAILABLE} {ENABLED}")
    for name, text in texts.items():
        host.ssh(f"mkdir -p $(dirname /etc/nginx/{name})")
        write(host, f"/etc/nginx/{name}", text)
    host.ssh("nginx -t && systemctl restart nginx")


@pytest.fixture
def six(host: Host) -> Iterator[str]:
    """An IPv6 address of the host, which this machine reaches."""
    network = f"{host.six}::"
    host.ssh(f"ip -6 address add {network}2/64 dev host0 nodad")
    here = [f"{network}1/64", "dev", host.interface]
    subprocess.run(["ip", "-6", "address", "add", *here, "nodad"], check=True)
    yield f"{network}2"
    subprocess.run(["ip", "-6", "address", "del", *here], check=True)
    host.ssh(f"ip -6 address del {network}2/64 dev host0")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_site_of_another_shape(host: Host, six: str, tmp_path: Path, shape: Shape) -> None:
    plant(host, shape.texts)
    before = tree(host, "/etc")
    done = converge(host)
    assert done.changed == (BOTH if shape.edited else [])
    edited = {f"/etc/nginx/{shape.edited}"} if shape.edited else set()
    assert differing(before, tree(host, "/etc")) == edited, "it is edited where it is"
    if shape.edited:
        text = read(host, f"/etc/nginx/{shape.edited}")
        assert without_ours(text) == shape.texts[shape.edited].encode()
        block = text.decode().partition(">>> ai-admin-deploy")[2]
        assert set(re.findall(r"location (\^~ \S+)", block)) == {each for each in shape.blocks if each.startswith("^~")}
        assert all(each in block for each in shape.blocks)
    assert through_nginx(host, HANDSHAKE, shape.address).startswith(ENGINE)
    assert "Socket.IO v" in through_nginx(host, "/socket.io/socket.io.js", shape.address)
    address = six if shape.address != "127.0.0.1" else host.address
    verified = verify(host, tmp_path, inventory=altered(tmp_path, verify_address=address))
    rows = {row["component"]: row["status"] for row in verified.table["rows"]}
    found = {name: rows[name] for name in ("Nginx WebSocket", "HTTPS/SSL", "HTML page", "Endpoints")}
    assert set(found.values()) == {"ready"}, verified.output


REFUSED = {
    "line 13: this location does not pass /socket.io/ to the API on port 3000; correct or remove it": {
        "conf.d/site.conf": PLAIN
        + server("443 ssl", "location ^~ /socket.io/ { proxy_pass http://localhost:4000; }", LANDS)
    },
    "/etc/nginx/conf.d/site.conf has no server on 443 for ai-admin.app; run certbot first, or set domain": {
        "conf.d/site.conf": PLAIN + server("8444 ssl", LANDS)
    },
}


@pytest.mark.parametrize("message", REFUSED)
def test_site_that_leaves_no_place_is_refused_in_the_plan(host: Host, message: str) -> None:
    plant(host, REFUSED[message])
    before = tree(host, "/etc", BACKUPS, STATE)
    assert message in refuse(host, "--dry")
    assert differing(before, tree(host, "/etc", BACKUPS, STATE)) == set()


@pytest.mark.parametrize("linked", [False, True], ids=["copy", "link"])
def test_what_nginx_refuses_is_put_back(host: Host, linked: bool) -> None:
    """By a file whose include our own reading of globs misses: [^x] is a set in C and none in Python."""
    write(host, "/etc/nginx/snippets/websocket.conf", BY_HAND)
    replace(host, ENABLED, "location /webhook/", "include snippets/[^x]ebsocket.conf;\n\n    location /webhook/")
    if linked:
        host.ssh(f"mv {ENABLED} {AVAILABLE} && ln -s ../sites-available/{SITE} {ENABLED}")
    host.ssh("systemctl reload nginx")
    before = tree(host, "/etc")
    output = refuse(host)
    assert "nginx refuses the new site; put back as they were: " in output
    assert 'duplicate location "/socket.io/"' in output
    assert differing(before, tree(host, "/etc")) == set()
    assert host.ssh("nginx -t", check=False).returncode == 0
    assert through_nginx(host, HANDSHAKE).startswith(ENGINE)


def test_no_server_for_the_domain_is_refused(host: Host) -> None:
    before = tree(host, "/etc")
    output = refuse(host, "--data", "domain=other.example")
    assert "has no server on 443 for other.example; run certbot first, or set domain" in output
    assert differing(before, tree(host, "/etc")) == set()


# --- what runs


def test_stopped_nginx_is_started(host: Host) -> None:
    converge(host)
    host.ssh("systemctl stop nginx")
    assert converge(host).changed == ["nginx reload"]
    assert through_nginx(host, HANDSHAKE).startswith(ENGINE)


@pytest.mark.parametrize(
    "by_hand", ["touch /etc/nginx/nginx.conf", "echo 'client_max_body_size 2m;' > /etc/nginx/conf.d/own.conf"]
)
def test_what_was_changed_by_hand_is_loaded(host: Host, by_hand: str) -> None:
    converge(host)
    old = workers(host)
    host.ssh(by_hand)
    assert converge(host).changed == ["nginx reload"]
    assert not old & workers(host)


def test_reload_that_was_never_reached_is_made_up_for(host: Host) -> None:
    """A run that was cut off between the two steps."""
    done = deploy(host, runbook=without("nginx reload"))
    assert done.changed == ["nginx site"]
    assert not through_nginx(host, HANDSHAKE).startswith(ENGINE)
    assert converge(host).changed == ["nginx reload"]
    assert through_nginx(host, HANDSHAKE).startswith(ENGINE)

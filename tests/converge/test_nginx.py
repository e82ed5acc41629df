"""nginx: a marked block in the operator's site, which serves all the while, and what runs is what is on disk."""

from __future__ import annotations

import pytest

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


def without_block(text: bytes) -> bytes:
    lines = text.decode().splitlines(keepends=True)
    begin = next(number for number, line in enumerate(lines) if ">>> ai-admin-deploy" in line)
    end = next(number for number, line in enumerate(lines) if "<<< ai-admin-deploy" in line)
    return "".join(lines[:begin] + lines[end + 1 :]).encode()


# --- the site


def test_the_copy_that_serves_is_the_base(host: Host) -> None:
    names, served, other = tree(host, "/etc/nginx"), read(host, ENABLED), read(host, AVAILABLE)
    assert served != other
    assert converge(host).changed == BOTH
    assert without_block(read(host, AVAILABLE)) == served
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
    assert without_block(read(host, AVAILABLE)) == served
    assert host.ssh(f"readlink {ENABLED}").stdout.strip() == f"../sites-available/{SITE}"
    assert through_nginx(host, HANDSHAKE).startswith(ENGINE)


def test_location_by_hand_is_not_doubled(host: Host) -> None:
    replace(host, ENABLED, "location /webhook/", f"{BY_HAND}    location /webhook/")
    served = read(host, ENABLED)
    assert converge(host).changed == BOTH
    assert read(host, AVAILABLE) == served
    assert through_nginx(host, HANDSHAKE).startswith(ENGINE)


def test_location_in_an_included_file_counts(host: Host) -> None:
    write(host, "/etc/nginx/snippets/websocket.conf", BY_HAND)
    replace(host, ENABLED, "location /webhook/", "include snippets/web*.conf;\n\n    location /webhook/")
    served = read(host, ENABLED)
    assert converge(host).changed == BOTH
    assert read(host, AVAILABLE) == served
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
    assert "nginx refuses the new site, so the old one was put back" in output
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

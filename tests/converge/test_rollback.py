"""Undo on purpose, and what goes back by itself."""

from __future__ import annotations

import pytest

from tests.rehearsal.host import Host
from tests.rehearsal.story import ROOT, deploy, tokens

pytestmark = pytest.mark.slow

FAST = ("--data", "settle_time=0")
FILES = (
    "/opt/ai-admin/.env",
    "/opt/ai-admin/src/api/routes/yclients-marketplace.js",
    "/opt/ai-admin/src/integrations/whatsapp/session-pool.js",
    "/etc/nginx/sites-available/ai-admin.app",
    "/etc/nginx/sites-enabled/ai-admin.app",
)
ROLLBACK = (ROOT / "rollback.py").read_text(encoding="utf-8")
LOOK = "cd /; for file in {}; do stat -c '%n %F %a' $file; sha256sum < $file; done"


def state(host: Host) -> str:
    """The five files: kind, mode and content."""
    return host.ssh(LOOK.format(" ".join(FILES))).stdout


def socket_answer(host: Host) -> str:
    url = "'https://ai-admin.app/socket.io/?EIO=4&transport=polling' --resolve ai-admin.app:443:127.0.0.1"
    return host.ssh(f"curl -sk {url} | head -c 2").stdout


def test_undo_the_last_and_a_named_deploy(leak_host: Host) -> None:
    pristine = state(leak_host)
    assert deploy(leak_host, *FAST).code == 0
    first = leak_host.ssh("ls /var/backups/ai-admin-deploy").stdout.split()[0]
    without_tokens = state(leak_host)
    assert deploy(leak_host, *FAST, environment=tokens()).code == 0
    with_tokens = state(leak_host)

    plan = deploy(leak_host, "--dry", runbook=ROLLBACK)
    assert "back as it was before: /opt/ai-admin/.env" in plan.output
    assert "the migration and the npm packages stay" in plan.output
    assert state(leak_host) == with_tokens, "the plan changes nothing"

    assert deploy(leak_host, *FAST, runbook=ROLLBACK).code == 0
    assert state(leak_host) == without_tokens
    assert '"partner_token":false' in leak_host.ssh("curl -s localhost:3000/marketplace/health-check").stdout

    assert socket_answer(leak_host) == "0{"
    assert deploy(leak_host, *FAST, "--data", f"undo={first}", runbook=ROLLBACK).code == 0
    assert state(leak_host) == pristine, "the copy in sites-enabled too"
    assert socket_answer(leak_host) == "<!", "and nginx serves it"
    columns = "select count(*) from information_schema.columns where table_name = 'companies'"
    assert leak_host.ssh(f'cd /; runuser -u postgres -- psql -XAtc "{columns}"').stdout.strip() == "34"

    assert deploy(leak_host, *FAST).code == 0
    assert deploy(leak_host, *FAST).changed == []


def test_an_unknown_deploy_is_refused(leak_host: Host) -> None:
    done = deploy(leak_host, "--data", "undo=20010101T000000Z", runbook=ROLLBACK)
    assert done.code == 1
    assert "keeps no files of deploy 20010101T000000Z" in done.output


def test_nginx_that_does_not_take_its_configuration_is_not_a_success(leak_host: Host) -> None:
    """A port that somebody else holds: `nginx -t` passes, the reload does not take effect, the old workers serve on."""
    leak_host.ssh("echo 'server { listen 5432; }' > /etc/nginx/conf.d/taken.conf && nginx -t")
    try:
        done = deploy(leak_host, *FAST, "--data", "start_timeout=2")
        assert done.code == 1
        assert "nginx did not load its configuration" in done.output and "5432" in done.output
        assert socket_answer(leak_host) == "0{", "it serves as before"
    finally:
        leak_host.ssh("rm /etc/nginx/conf.d/taken.conf")
    assert deploy(leak_host, *FAST).code == 0
    assert deploy(leak_host, *FAST).changed == []

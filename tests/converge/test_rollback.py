"""Undo on purpose, and what goes back by itself."""

from __future__ import annotations

import re

import pytest

from tests.rehearsal.host import Host
from tests.rehearsal.story import ROOT, deploy, tokens

pytestmark = pytest.mark.slow

FAST = ("--data", "settle_time=0", "--data", "start_timeout=300")
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
    assert "put back as it was: /opt/ai-admin/.env" in plan.output
    assert "the migration and the npm packages stay: a rollback does not undo them" in plan.output
    assert state(leak_host) == with_tokens, "the plan changes nothing"
    last = leak_host.ssh("ls /var/backups/ai-admin-deploy").stdout.split()[-1]

    assert "itself the rollback of" not in plan.output
    assert "ai-admin-api is restarted" in plan.output

    assert deploy(leak_host, *FAST, runbook=ROLLBACK).code == 0
    assert state(leak_host) == without_tokens
    twice = deploy(leak_host, "--dry", runbook=ROLLBACK)
    assert f"itself the rollback of {last}, whose changes come back" in twice.output
    assert '"partner_token":false' in leak_host.ssh("curl -s localhost:3000/marketplace/health-check").stdout

    assert socket_answer(leak_host) == "0{"
    assert deploy(leak_host, *FAST, "--data", f"undo={first}", runbook=ROLLBACK).code == 0
    assert state(leak_host) == pristine, "the copy in sites-enabled too"
    assert socket_answer(leak_host) == "<!", "and nginx serves it"
    columns = "select count(*) from information_schema.columns where table_name = 'companies'"
    assert leak_host.ssh(f'cd /; runuser -u postgres -- psql -XAtc "{columns}"').stdout.strip() == "34"

    assert deploy(leak_host, *FAST).code == 0
    assert deploy(leak_host, *FAST).changed == []
    assert "itself the rollback of" not in deploy(leak_host, "--dry", runbook=ROLLBACK).output, "it was a deploy"


def test_it_needs_nothing_but_ssh_and_its_backups(leak_host: Host) -> None:
    """When it is needed, the database, redis, nginx, the API, the operator's secrets may be out of reach."""
    assert deploy(leak_host, *FAST).code == 0
    before = state(leak_host)
    assert deploy(leak_host, *FAST, environment=tokens()).code == 0
    leak_host.ssh("echo THEIRS=1 >> /opt/ai-admin/.env")
    services = "postgresql redis-server nginx"
    leak_host.ssh(f"systemctl stop {services}; pm2 kill >/dev/null")
    try:
        plan = deploy(leak_host, "--dry", runbook=ROLLBACK)
        assert "somebody else has changed it since: their text goes to the backups of this rollback" in plan.output
        assert "at that time it had no YCLIENTS_PARTNER_TOKEN, YCLIENTS_APP_ID" in plan.output
        assert "ai-admin-api is restarted" in plan.output
        back = deploy(leak_host, *FAST, runbook=ROLLBACK, environment={"YCLIENTS_SECRETS_COMMAND": "false"})
        assert back.code == 0, back.output
        assert state(leak_host) == before
        assert leak_host.ssh("curl -s localhost:3000/marketplace/health-check").stdout.startswith('{"status":"ok"')
        kept = "/var/backups/ai-admin-deploy/*/opt/ai-admin/.env"
        assert leak_host.ssh(f"grep -l THEIRS=1 {kept}").stdout.count("\n") == 1
    finally:
        leak_host.ssh(f"systemctl start {services}")
    assert deploy(leak_host, *FAST).changed in ([], ["nginx reload"])
    assert deploy(leak_host, *FAST).changed == []


def test_all_or_nothing(leak_host: Host) -> None:
    """nginx refuses what stood there before, or the API does not start with it."""
    assert deploy(leak_host, *FAST, environment=tokens()).code == 0
    leak_host.ssh("sed -i 's/^JWT_SECRET=.*/JWT_SECRET=/' /opt/ai-admin/.env")
    leak_host.ssh("sed -i '/location .*socket.io/,/^    }/d' /etc/nginx/sites-available/ai-admin.app")
    assert deploy(leak_host, *FAST).code == 0
    last = leak_host.ssh("ls /var/backups/ai-admin-deploy").stdout.split()[-1]
    backup = f"/var/backups/ai-admin-deploy/{last}"
    assert "sites-available" in leak_host.ssh(f"find {backup} -type f").stdout
    now = state(leak_host)

    leak_host.ssh(f"echo 'bogus on;' >> {backup}/etc/nginx/sites-available/ai-admin.app")
    refused = deploy(leak_host, *FAST, "--data", f"undo={last}", runbook=ROLLBACK)
    assert refused.code == 1
    assert re.search(r'so nothing was changed: .*unknown directive "bogus"', refused.output), refused.output
    assert "put back, because" not in refused.output
    assert state(leak_host) == now

    leak_host.ssh(f"sed -i '/bogus/d' {backup}/etc/nginx/sites-available/ai-admin.app")
    leak_host.ssh(f"echo PORT=99999 >> {backup}/opt/ai-admin/.env")  # which node refuses
    refused = deploy(leak_host, *FAST, "--data", f"undo={last}", "--data", "start_timeout=600", runbook=ROLLBACK)
    assert refused.code == 1
    assert "put back as they were: /opt/ai-admin/.env" in refused.output
    assert state(leak_host) == now
    assert socket_answer(leak_host) == "0{"
    assert set(deploy(leak_host, *FAST).changed) <= {"nginx reload", "API restart"}


def test_what_nginx_refused_before_is_no_reason(leak_host: Host) -> None:
    """A file of somebody else that nginx refuses: the files go back and stay, and nginx runs what it ran."""
    assert deploy(leak_host, *FAST).code == 0
    leak_host.ssh("sed -i '/location .*socket.io/,/^    }/d' /etc/nginx/sites-available/ai-admin.app")
    leak_host.ssh("sed -i 's/^JWT_SECRET=.*/JWT_SECRET=/' /opt/ai-admin/.env")
    before = state(leak_host)
    assert deploy(leak_host, *FAST).code == 0
    leak_host.ssh("echo 'oops;' > /etc/nginx/conf.d/broken.conf")
    try:
        back = deploy(leak_host, *FAST, runbook=ROLLBACK)
        assert back.code == 1
        assert "the files are back, but nginx still refuses its configuration, and runs the old one" in back.output
        assert state(leak_host) == before
    finally:
        leak_host.ssh("rm /etc/nginx/conf.d/broken.conf")
    assert deploy(leak_host, *FAST).code == 0
    assert deploy(leak_host, *FAST).changed == []


def test_the_last_is_the_last_that_is_in_force(leak_host: Host) -> None:
    """A deploy that failed was put back: to undo it would change nothing, but for what somebody has written since."""
    assert deploy(leak_host, *FAST, environment=tokens()).code == 0
    leak_host.ssh("echo 'process.exit(1);' >> /opt/ai-admin/src/config.js")
    try:
        assert deploy(leak_host, *FAST, environment=tokens()).code == 1
    finally:
        leak_host.ssh("sed -i '$d' /opt/ai-admin/src/config.js && pm2 restart ai-admin-api")
    deploys = leak_host.ssh("ls /var/backups/ai-admin-deploy").stdout.split()
    plan = deploy(leak_host, "--dry", runbook=ROLLBACK)
    assert f"rollback of deploy {deploys[-2]}:" in plan.output
    assert "somebody else" not in plan.output
    leak_host.ssh("echo THEIRS=1 >> /opt/ai-admin/.env")
    plan = deploy(leak_host, "--dry", runbook=ROLLBACK)
    assert f"rollback of deploy {deploys[-2]}:" in plan.output
    assert "somebody else has changed it since: their text goes to the backups of this rollback" in plan.output
    assert deploy(leak_host, *FAST).code == 0


def test_an_unknown_deploy_is_refused(leak_host: Host) -> None:
    done = deploy(leak_host, "--data", "undo=20010101T000000Z", runbook=ROLLBACK)
    assert done.code == 1
    assert "has no backup of deploy 20010101T000000Z of ai-admin-api; it has: " in done.output


def test_nginx_that_does_not_take_its_configuration_is_not_a_success(leak_host: Host) -> None:
    """A port that somebody else holds: `nginx -t` passes, the reload does not take effect, the old workers serve on."""
    leak_host.ssh("echo 'server { listen 5432; }' > /etc/nginx/conf.d/taken.conf && nginx -t")
    try:
        done = deploy(leak_host, *FAST, "--data", "start_timeout=10")
        assert done.code == 1
        assert re.search(r"nginx did not load its configuration: .*bind\(\) to 0.0.0.0:5432 failed", done.output)
        assert socket_answer(leak_host) == "0{", "it serves as before"
    finally:
        leak_host.ssh("rm /etc/nginx/conf.d/taken.conf")
    assert deploy(leak_host, *FAST).code == 0
    assert deploy(leak_host, *FAST).changed == []

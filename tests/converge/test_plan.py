"""What a run tells: the plan with its sources and differences, that it goes on, and in short what is next."""

from __future__ import annotations

import json
import re

import pytest

from tests.converge.conftest import QUICK, owned, sql
from tests.converge.operator import INVENTORY, Operator
from tests.rehearsal.host import Host
from tests.rehearsal.story import tokens

pytestmark = pytest.mark.slow


def said(host: Host, output: str) -> list[str]:
    """The lines about this host, without its name."""
    return [line.partition(f"[{host.name}]")[2].rstrip() for line in output.splitlines() if f"[{host.name}]" in line]


def test_the_plan_then_the_run_then_what_is_next(host: Host) -> None:
    own = tokens()
    operator = Operator(host, {"YCLIENTS_APP_ID": own["YCLIENTS_APP_ID"]})
    before = owned(host)
    plan = operator.run("--dry", "--diff")
    assert (plan.returncode, owned(host)) == (0, before)
    lines = [line.strip() for line in said(host, plan.stderr)]
    assert "secrets: YCLIENTS_APP_ID from .env" in lines
    for line in (
        "+++ /etc/nginx/sites-available/ai-admin.app",
        "+    location ^~ /socket.io/ {",
        "+++ src/api/routes/yclients-marketplace.js",
        "+router.get('/marketplace/health-check', (req, res) => {",
        "+++ src/integrations/whatsapp/session-pool.js",
        "+ALTER TABLE companies ADD COLUMN IF NOT EXISTS api_key varchar(255);",
        "-JWT_SECRET: absent",
        "+JWT_SECRET: set, 44 characters",
        "+YCLIENTS_APP_ID: set, 5 characters",
    ):
        assert lines.count(line) == 1, line
    assert own["YCLIENTS_APP_ID"] not in plan.stdout + plan.stderr
    assert "+++" not in operator.run("--dry").stderr, "only where it is asked for"

    done = operator.run("-y", *QUICK, "--diff")
    assert done.returncode == 0, done.stderr
    assert re.search(r"… (npm packages|API restart): \d+ s so far", done.stderr), "a long step says that it goes on"
    assert [line.strip() for line in said(host, done.stderr)].count("+YCLIENTS_APP_ID: set, 5 characters") == 1
    short = [line.strip() for line in said(host, done.stderr.partition("--> In short")[2])]
    assert len(short) <= 5
    assert short[0].startswith("changed: npm packages, Database migration, Secrets in .env")
    assert short[1].startswith("pending: YCLIENTS_PARTNER_TOKEN; put it into .env in this folder when it comes")
    assert short[2] == f"next: bin/verify {INVENTORY} --limit {host.name}"
    assert "Verification" not in done.stderr, "nothing was verified, so there is no row that reads so"

    again = operator.run("-y", *QUICK)
    assert said(host, again.stderr.partition("--> In short")[2])[0].strip().startswith("changed: nothing")


ROUTES = "/opt/ai-admin/src/api/routes/yclients-marketplace.js"
SITE = "/etc/nginx/sites-available/ai-admin.app"
MODULES = "/opt/ai-admin/node_modules"
BETWEEN = (
    "echo A=1 >> /opt/ai-admin/.env",
    f"echo '// theirs' >> {ROUTES}",
    "echo '// marketplace' > /opt/ai-admin/src/new.js",
    f"sed -i 's/proxy_http_version 1.1;//' {SITE}",
    "pm2 stop ai-admin-api",
    f"mv {MODULES}/jsonwebtoken {MODULES}/.jsonwebtoken",
    "SQL: DROP TABLE marketplace_tokens",
)


def test_an_approved_plan_is_applied_and_no_other(host: Host) -> None:
    """One change of each noun between the approval and the run; what they left, the last plan repairs."""
    operator = Operator(host, {})
    assert operator.run("-y", *QUICK).returncode == 0

    def planned() -> str:
        done = operator.run("--dry", "--json", *QUICK)
        plan = json.loads(done.stdout)["hosts"][host.name]
        assert (done.returncode, set(plan)) == (0, {"plan", "changes", "pending"}), done.stderr
        return str(plan["plan"])

    assert planned() == planned(), "where nothing has changed"
    for change in BETWEEN:
        approved = planned()
        sql(host, change.removeprefix("SQL:")) if change.startswith("SQL:") else host.ssh(change)
        before = owned(host)
        done = operator.run("-y", *QUICK, "--data", f"plan={approved}")
        assert done.returncode == 1, change
        told = f"{host.name}: something has changed since plan {approved} was made; see the new plan with --dry"
        assert told in done.stderr, change
        assert owned(host).items() >= {path: was for path, was in before.items() if "/var/lib/" not in path}.items()

    done = operator.run("-y", *QUICK, "--data", f"plan={planned()}")
    assert done.returncode == 0, done.stderr

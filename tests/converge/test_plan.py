"""What a run tells: the plan with its sources and differences, that it goes on, and in short what is next."""

from __future__ import annotations

import re

import pytest

from tests.converge.conftest import QUICK, owned
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
    assert short[1].startswith("pending: YCLIENTS_PARTNER_TOKEN; fill in .env in this folder")
    assert short[2] == f"next: bin/verify {INVENTORY} --limit {host.name}"
    assert "Verification" not in done.stderr, "nothing was verified, so there is no row that reads so"

    again = operator.run("-y", *QUICK)
    assert said(host, again.stderr.partition("--> In short")[2])[0].strip().startswith("changed: nothing")

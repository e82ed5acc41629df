"""A second application on the same host: another name, port, domain, folder, database and owner of its tokens.

Whatever is done to the one leaves the other as it is: its files, its process, its database, its backups.
"""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass

import pytest

from tests.converge.conftest import APP, QUICK, Verified, apps, differing, read, sql, tree, verify
from tests.rehearsal.host import FIREWALL, Host, until
from tests.rehearsal.salons import APP as NAME
from tests.rehearsal.salons import DATABASE, DOMAIN, FOLDER, PORT
from tests.rehearsal.story import EVERYTHING, INVENTORY, ROOT, Deployed, deploy, tokens

pytestmark = [pytest.mark.slow, pytest.mark.long]

SECOND = "tests/rehearsal/second.py"
URL = f"postgresql://{DATABASE}:s3cret@127.0.0.1:5432/{DATABASE}"
ROWS = "SELECT md5(string_agg(c::text, '' ORDER BY id)) FROM companies c"
ROLLBACK = (ROOT / "rollback.py").read_text(encoding="utf-8")

# A copy of the application as it was found, in a folder of its own, with its own port, database and certificate
PLANT = f"""
mkdir -p /srv/salons && cp -a {APP} {FOLDER} && cd {FOLDER}
sed -i 's,{APP},{FOLDER},; s,ai-admin-api,{NAME},' ecosystem.config.js
sed -i "s|^app.use(express.json());|&\\napp.get('/api/whoami', (req, res) => res.send('second'));|" src/index.js
sed -i 's,^PORT=.*,PORT={PORT},; s,^POSTGRES_DATABASE=.*,POSTGRES_DATABASE={DATABASE},' .env
sed -i 's,^POSTGRES_USER=.*,POSTGRES_USER={DATABASE},; s,^POSTGRES_PASSWORD=.*,POSTGRES_PASSWORD=s3cret,' .env
live=/etc/letsencrypt/live/{DOMAIN} && mkdir -p $live
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj /CN={DOMAIN} \\
  -addext subjectAltName=DNS:{DOMAIN} -keyout $live/privkey.pem -out $live/fullchain.pem 2>/dev/null
chmod 600 $live/privkey.pem
echo 'version = 2.11.0' > /etc/letsencrypt/renewal/{DOMAIN}.conf
"""


@dataclass(frozen=True)
class Both:
    """The host with two applications, and what belongs to the operator of each."""

    host: Host
    first: dict[str, str]
    second: dict[str, str]

    def deploy(self, which: str, *arguments: str, runbook: str | None = None) -> Deployed:
        own, inventory = (self.first, INVENTORY) if which == "first" else (self.second, SECOND)
        return deploy(self.host, *QUICK, *arguments, environment=own, inventory=inventory, runbook=runbook)

    def verify(self, which: str) -> Verified:
        return verify(self.host) if which == "first" else verify(self.host, SECOND, DATABASE_URL=URL)

    def of(self, which: str) -> dict[str, str]:
        """What is of this one alone: its files but for the packages, site, process, database."""
        folder, site, name, database = {
            "first": (APP, "ai-admin.app", "ai-admin-api", "postgres"),
            "second": (FOLDER, "salons", NAME, DATABASE),
        }[which]
        of_nginx = tuple(f"/etc/nginx/sites-{kind}/{site}" for kind in ("available", "enabled"))
        files = tree(self.host, f"{folder}/src", "/etc/nginx")
        own = {path: what for path, what in files.items() if path.startswith((folder, *of_nginx))}
        own["env"] = self.host.ssh(f"sha256sum {folder}/.env").stdout
        rows = sql(self.host, ROWS, database)
        return {**own, "process": str(apps(self.host)[name]), "rows": rows}


@pytest.fixture(scope="module")
def both(host: Host) -> Both:
    """The first is converged; the second is as the first was found, but that pm2 does not know it yet."""
    sql(host, f"CREATE ROLE {DATABASE} LOGIN PASSWORD 's3cret'")
    sql(host, f"CREATE DATABASE {DATABASE} OWNER {DATABASE}")
    copy = "cd / && runuser -u postgres -- pg_dump --no-owner -t companies postgres"
    host.ssh(f"{copy} | runuser -u postgres -- psql -Xq -v ON_ERROR_STOP=1 {DATABASE}")
    sql(host, f"ALTER TABLE companies OWNER TO {DATABASE}", DATABASE)
    host.ssh("sh -e", input=PLANT)
    rule = f"add rule ip {host.table} {FIREWALL} ip daddr {host.address} tcp dport {PORT} drop"
    subprocess.run(["nft", rule], check=True)
    found = Both(host, tokens(), {**tokens(), "DATABASE_URL": URL})
    assert found.deploy("first").code == 0
    return found


def test_a_deploy_of_the_second_changes_nothing_of_the_first(both: Both) -> None:
    before, packages = both.of("first"), tree(both.host, f"{APP}/node_modules")
    done = both.deploy("second")
    assert (done.code, done.changed) == (0, EVERYTHING), done.output
    assert differing(before, both.of("first")) == set()
    assert differing(packages, tree(both.host, f"{APP}/node_modules")) == set()
    for which in ("second", "first"):
        again = both.deploy(which)
        assert (again.code, again.changed) == (0, []), again.output


@pytest.mark.parametrize("which", ["first", "second"])
def test_both_are_ready(both: Both, which: str) -> None:
    found = both.verify(which)
    assert (found.code, list(found.rows.values())) == (0, ["ready"] * 10), found.output


# A line for each answer: of the first's own port, and of the second's site; until it may end, or for 5 minutes
ASK = f"""
rm -f /run/go; touch /run/here; end=$(($(date +%s) + 300))
whoami="curl -sk -m 60 --resolve {DOMAIN}:443:127.0.0.1 https://{DOMAIN}/api/whoami"
while [ ! -e /run/go ] && [ $(date +%s) -lt $end ]; do
  first=$(curl -s -o /dev/null -w '%{{http_code}}' localhost:3000/health); echo "$first $($whoami)"
done
"""


def test_the_second_answers_for_itself_while_the_first_restarts(both: Both) -> None:
    """Not the first in its place, and nobody keeps its requests waiting."""
    both.host.ssh(f"rm -f /run/here; touch {APP}/.env")
    with subprocess.Popen([*both.host.ssh_command(), ASK], stdout=subprocess.PIPE, text=True) as asking:
        until(60, "it to ask", lambda: both.host.ssh("test -e /run/here", check=False).returncode == 0)
        done = both.deploy("first")
        both.host.ssh("touch /run/go")
        answers = asking.communicate(timeout=60)[0].splitlines()
    assert (done.code, done.changed) == (0, ["API restart"]), done.output
    assert {answer.partition(" ")[2] for answer in answers} == {"second"}
    assert "000 second" in answers, "it was asked while the first was down"


@pytest.mark.parametrize("which", ["first", "second"])
def test_a_rollback_of_the_one_leaves_the_other(both: Both, which: str) -> None:
    """That of the first too, though the last deploy on the host was the second's."""
    other = "second" if which == "first" else "first"
    before, own = both.of(other), both.of(which)
    back = both.deploy(which, runbook=ROLLBACK)
    assert (back.code, back.changed) == (0, ["Rollback"]), back.output
    assert differing(before, both.of(other)) == set()
    assert differing(own, both.of(which)), "it has undone something"
    assert both.deploy(which).code == 0


def test_a_rollback_to_a_deploy_of_the_other_is_refused(both: Both) -> None:
    deploys = {which: _deploys(both.host, name) for which, name in (("first", "ai-admin-api"), ("second", NAME))}
    refused = both.deploy("first", "--data", f"undo={deploys['second'][-1]}", runbook=ROLLBACK)
    assert refused.code == 1
    kept = ", ".join(deploys["first"])
    assert f"has no backup of deploy {deploys['second'][-1]} of ai-admin-api; it has: {kept}\n" in refused.output


def _deploys(host: Host, app: str) -> list[str]:
    lines = [json.loads(line) for line in read(host, "/var/log/ai-admin-deploy.jsonl").splitlines()]
    return [line["deploy"] for line in lines if line["app"] == app and line["files"]]


def test_what_is_to_be_typed_is_of_the_second(both: Both) -> None:
    both.host.ssh(f"pm2 stop {NAME}")
    found = both.verify("second")
    assert found.code == 1
    assert f"pm2 does not run {NAME}" in found.output
    assert f"pm2 logs {NAME} " in found.output
    assert not re.search(f"ai-admin-api|{APP}|ai-admin.app", found.output), found.output
    assert both.verify("first").code == 0
    done = both.deploy("second")
    assert (done.code, done.changed) == (0, ["API restart"]), done.output

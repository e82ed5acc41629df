"""Hosts of another shape than the default one: pm2 of another user, cluster mode, Node from nvm, no pm2 at all.

Each shape is made on top of the one before; only the first begins with a host that has nothing of ours.
"""

from __future__ import annotations

import re
import shutil

import pytest

from tests.converge.conftest import APP, QUICK, differing, health_check, only, owned, refuse, tree, verify
from tests.rehearsal import image
from tests.rehearsal.host import Host, until
from tests.rehearsal.story import EVERYTHING, ROOT, deploy, tokens

pytestmark = [pytest.mark.slow, pytest.mark.long]

API = "ai-admin-api"
USER = "app"
PIDS = f"cat /home/{USER}/.pm2/pids/{API}-*.pid"
AS_USER = f'cd {APP}; as() {{ runuser -u {USER} -- env -i HOME=/home/{USER} PATH="$PATH" "$@"; }}\n'
STARTED = f"""
as pm2 start ecosystem.config.js > /dev/null
as pm2 stop ai-admin-telegram-bot > /dev/null
as pm2 save > /dev/null
pm2 startup systemd -u {USER} --hp /home/{USER} > /dev/null
as pm2 kill > /dev/null
systemctl start pm2-{USER}
"""
ANOTHER_USER = f"""
systemctl disable -q --now pm2-root
useradd -m {USER}
chown -R {USER}:{USER} {APP}
{STARTED}
"""
CLUSTER = f"""
sed -i "/'{API}'/s/app(.*)/{{ ...&, exec_mode: 'cluster', instances: 2 }}/" ecosystem.config.js
as pm2 delete {API} > /dev/null
as pm2 start ecosystem.config.js --only {API} > /dev/null
as pm2 save > /dev/null
"""
NVM = f"""
systemctl stop pm2-{USER}
to=/home/{USER}/.nvm/versions/node/$(node --version)
npm=$(readlink -f $(command -v npm))
mkdir -p $to/bin $to/lib
mv /usr/bin/node $to/bin/
mv /usr/local/lib/node_modules $to/lib/
rm -f /usr/bin/nodejs /usr/bin/npm /usr/local/bin/pm2
ln -s $npm $to/bin/npm
ln -s ../lib/node_modules/pm2/bin/pm2 $to/bin/pm2
chown -R {USER}:{USER} /home/{USER}/.nvm
export PATH=$to/bin:$PATH
{STARTED}
"""


def shape(host: Host, script: str) -> None:
    host.ssh("sh -eu", input=AS_USER + script)
    answers = "curl -sf -o /dev/null localhost:3000/health"
    until(60, "the application", lambda: host.ssh(answers, check=False).returncode == 0)


def pids(host: Host) -> list[str]:
    return re.findall(r"\d+", host.ssh(f"for file in /home/{USER}/.pm2/pids/{API}-*; do cat $file; echo; done").stdout)


def daemons(host: Host) -> list[str]:
    """Whose pm2 run."""
    return sorted(host.ssh("ps -eo user=,args= | awk '/God Daemo[n]/ { print $1 }'").stdout.split())


def not_of_the_user(host: Host) -> str:
    return host.ssh(f"find {APP} ! -user {USER}").stdout


def story(host: Host, first: list[str], broken: str = "") -> None:
    """Deploy, again, tokens, verification, the way back: all with the one pm2 that served before. `broken`: the row
    that is not ready there."""
    before = daemons(host)
    done = deploy(host, *QUICK)
    assert (done.code, done.changed) == (0, first), done.output
    again = deploy(host, *QUICK)
    assert (again.code, again.changed) == (0, []), again.output
    old = pids(host)
    done = deploy(host, *QUICK, environment=tokens())
    assert (done.code, done.changed) == (0, ["Secrets in .env", "API restart"]), done.output
    assert len(pids(host)) == len(old) and not {*old} & {*pids(host)}
    assert all(health_check(host).values())
    verified = verify(host)
    others = {status for row, status in verified.rows.items() if row != broken}
    assert (verified.code, others) == (1 if broken else 0, {"ready"}), verified.output
    assert not broken or verified.rows[broken] == "failing", verified.output
    rollback = (ROOT / "rollback.py").read_text(encoding="utf-8")
    back = deploy(host, *QUICK, runbook=rollback)
    assert (back.code, back.changed) == (0, ["Rollback"]), back.output
    assert health_check(host) == {"partner_token": False, "app_id": False, "jwt_secret": True}
    assert not_of_the_user(host) == ""
    assert daemons(host) == before


@pytest.fixture(scope="module")
def users(host: Host) -> Host:
    """The API runs under its user's pm2, and as on the default host with a package that is no longer there."""
    package = f"{APP}/node_modules/socket.io".lstrip("/")
    shutil.copytree(image.layers()[0] / package, host.root / package)
    shape(host, ANOTHER_USER)
    host.ssh(f"rm -r /{package}")
    return host


def test_pm2_of_another_user(users: Host) -> None:
    story(users, EVERYTHING)


def test_a_new_dotenv_belongs_to_the_user(users: Host) -> None:
    users.ssh(f"mv {APP}/.env /root/")
    done = deploy(users, *QUICK, runbook=only("Secrets in .env"))
    described = tree(users, APP)[f"{APP}/.env"]
    uid = users.ssh(f"id -u {USER}").stdout.strip()
    users.ssh(f"mv /root/.env {APP}/.env")
    deploy(users, *QUICK)  # what nothing has loaded is restarted by the next deploy, whoever starts it meanwhile
    assert done.changed == ["Secrets in .env"]
    assert described.startswith(f"-rw------- {uid}:")


def test_cluster_mode(users: Host) -> None:
    shape(users, CLUSTER)
    assert (
        "God Daemon"
        in users.ssh(
            "tr '\\0' ' ' < /proc/$(ss -Hltnp 'sport = :3000' | grep -o '[0-9]*,fd' | cut -d, -f1)/cmdline"
        ).stdout
    )
    story(users, [], "WebSocket server")  # as polling's second request comes to the other worker


def test_shadowed_key_in_cluster_mode(users: Host) -> None:
    """It is in pm2's record of each worker; the app is started anew, from its ecosystem file."""
    shape(users, f"as env JWT_SECRET=x pm2 restart {API} --update-env > /dev/null")
    done = deploy(users, *QUICK)
    assert (done.code, done.changed) == (0, ["API restart"]), done.output
    assert "pm2's own environment overrides JWT_SECRET of .env" in done.output
    assert len(pids(users)) == 2
    assert deploy(users, *QUICK).changed == []


def test_node_of_nvm(users: Host) -> None:
    shape(users, NVM)
    assert users.ssh("command -v node npm pm2", check=False).stdout == ""
    story(users, [], "WebSocket server")  # still two workers


# --- stopped before any change


def refused(host: Host) -> str:
    """What deploy said, in one line, having changed nothing."""
    before = owned(host)
    found = refuse(host, environment=tokens())
    assert differing(before, owned(host)) == set()
    return next(line for line in found.splitlines() if "pm2 on" in line)


def test_two_pm2_have_the_api(users: Host) -> None:
    """Root's has a second one, at another port."""
    node = users.ssh(f"echo /home/{USER}/.nvm/versions/node/*/bin").stdout.strip()
    users.ssh(f"cd {APP} && PATH={node}:$PATH PORT=3999 pm2 start src/index.js --name {API}")
    message = refused(users)
    verified = verify(users)
    users.ssh(f"PATH={node}:$PATH pm2 kill")
    assert f"more than one pm2 may run {API}: " in message
    assert f"{USER} (/home/{USER}/.pm2)" in message and "root (/root/.pm2)" in message
    assert "a second pm2, of user root, has ai-admin-api too" in " ".join(verified.output.split())
    assert f"env PATH={node}:$PATH pm2 delete ai-admin-api" in verified.output


def test_a_dotenv_that_the_user_cannot_read(users: Host) -> None:
    users.ssh(f"chown root:root {APP}/.env")
    message = refused(users)
    users.ssh(f"chown {USER}:{USER} {APP}/.env")
    assert f"{APP}/.env cannot be read by {USER}, who runs {API}: chown {USER} {APP}/.env" in message


def test_the_api_without_pm2(users: Host) -> None:
    """It is a service of systemd, and the port is its."""
    node = users.ssh(f"echo /home/{USER}/.nvm/versions/node/*/bin").stdout.strip()
    users.ssh(f"runuser -u {USER} -- env PATH={node}:$PATH pm2 stop {API}")
    run = f"systemd-run -q --unit=ai-admin --uid={USER} -p WorkingDirectory={APP} {node}/node src/index.js"
    shape(users, run)
    message = refused(users)
    verified = verify(users)
    users.ssh(f"systemctl stop ai-admin; runuser -u {USER} -- env PATH={node}:$PATH pm2 restart {API}")
    assert re.search(
        rf"but port 3000 is held by node \(pid \d+, user {USER}, ai-admin.service\), which is not", message
    )
    assert "port 3000 is held by a process that is not pm2's" in " ".join(verified.output.split())

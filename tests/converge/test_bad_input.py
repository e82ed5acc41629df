"""Bad input: one line that names the thing and the remedy, a failed run, and nothing changed on the host."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.converge.conftest import APP, owned, read, refuse, sql, tree, write
from tests.rehearsal.host import KEY, Host

PIDS = "/root/.pm2/pids"
SITE = "/etc/nginx/sites-enabled/ai-admin.app"


def shown(output: str) -> list[str]:
    """What the run said, without pyinfra's own headings."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    own = ("Loading", "Connecting", "Preparing", "Beginning", "Disconnecting", "pyinfra error: No hosts remaining!")
    return [
        line
        for line in lines
        if not line.removeprefix("--> ").startswith(own) and not re.fullmatch(r"\[\w+\] +Connected", line)
    ]


def refused(host: Host, *arguments: str, dotenv: str | None = None) -> str:
    """What one line says, after the file and line number that pyinfra puts before it."""
    before = owned(host), tree(host, PIDS)
    lines = shown(refuse(host, *arguments, dotenv=dotenv))
    assert len(lines) == 1, "\n".join(lines)
    assert (owned(host), tree(host, PIDS)) == before
    return lines[0]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("api_prot=3000", "settings: there is no setting 'api_prot'; the settings are: app_dir, api_app, api_port"),
        ("api_port=abc", "settings: api_port must be a whole number from 1 to 65535, not 'abc'"),
        ("app_dir=/opt/my app", "settings: app_dir must be an absolute path without spaces, not '/opt/my app'"),
    ],
)
def test_setting(host: Host, setting: str, message: str) -> None:
    assert message in refused(host, "--data", setting)


def test_local_dotenv_that_does_not_parse(host: Host) -> None:
    message = refused(host, dotenv="YCLIENTS_APP_ID=18289\nYCLIENTS PARTNER TOKEN\n")
    assert ".env: line 2 is not KEY=value; fix it or comment it out" in message


def test_host_that_refuses_the_key(host: Host) -> None:
    keys = read(host, "/root/.ssh/authorized_keys")
    _in_place(host, "/root/.ssh/authorized_keys", b"")
    try:
        cause, advice, command = shown(refuse(host))
    finally:
        _in_place(host, "/root/.ssh/authorized_keys", keys)
    assert host.name in cause and str(KEY) in cause
    assert "correct ssh_user or ssh_key until this lets you in:" in advice
    assert command.endswith(f"-i {KEY} root@{host.address}"), "it can be pasted"


def _in_place(host: Host, path: str, content: bytes) -> None:
    """From outside: ssh does not let us in meanwhile."""
    (host.root / path.lstrip("/")).write_bytes(content)


@pytest.fixture
def hidden(host: Host, request: pytest.FixtureRequest) -> Iterator[str]:
    path: str = request.param
    aside = f"{path}.hidden"
    host.ssh(f"mv {path} {aside}")
    yield path
    host.ssh(f"mv {aside} {path}")


@pytest.mark.parametrize(
    ("hidden", "message"),
    [
        ("/usr/bin/python3", "python3 is not installed on {host}: apt-get install python3"),
        ("/usr/bin/node", "pm2 on {host}: node is not installed: install Node.js 20 or newer"),
        ("/usr/sbin/nginx", "nginx on {host}: nginx is not installed: apt-get install nginx"),
        ("/usr/local/bin/pm2", "pm2 on {host}: pm2 is not installed: npm install --global pm2"),
        ("/usr/bin/psql", "migration on {host}: psql is not installed: apt-get install postgresql-client"),
        (APP, f"npm on {{host}}: {APP}/package.json is not there: deploy the application first, or set app_dir"),
    ],
    indirect=["hidden"],
)
@pytest.mark.usefixtures("hidden")
def test_what_the_host_lacks(host: Host, message: str) -> None:
    assert message.format(host=host.name) in refused(host)


def test_site_that_nginx_refuses(host: Host) -> None:
    text = read(host, SITE)
    write(host, SITE, text.replace(b"index index.html;", b"indx index.html;"))
    message = refused(host)
    write(host, SITE, text)
    assert f'unknown directive "indx" in {SITE}' in message
    assert "fix it until `nginx -t` passes, then run again" in message


def test_database_that_is_down(host: Host) -> None:
    host.ssh("systemctl stop postgresql@17-main")
    message = refused(host)
    host.ssh("systemctl start postgresql@17-main")
    assert "is PostgreSQL running? systemctl status postgresql" in message


def test_database_that_is_another(host: Host) -> None:
    """Found before the first step: npm's is not done either."""
    sql(host, "ALTER TABLE companies RENAME TO firms")
    message = refused(host)
    sql(host, "ALTER TABLE firms RENAME TO companies")
    assert f"the database of {host.name} has no table `companies`" in message

"""What whoever knows pyinfra expects: facts that `pyinfra … fact` shows, an operation alone in somebody else's deploy,
and pyinfra's global arguments, from wherever pyinfra takes them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.converge.conftest import APP, QUICK, apps, differing, health_check, read, tree
from tests.rehearsal.host import Host
from tests.rehearsal.story import EVERYTHING, INVENTORY, ROOT, copy_of_repository, deploy, tokens, without_secrets

pytestmark = pytest.mark.slow

PYINFRA = str(Path(sys.executable).with_name("pyinfra"))
FACTS = ("dotenv.Dotenv", "npm.Npm", "source.Source", "migration.Migration", "nginx.Nginx", "pm2.Pm2")
LOOK = ">>> sh -c 'python3 -I"  # what -vv shows of a program of ours


def pyinfra(*arguments: str, dotenv: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    with copy_of_repository(ROOT, dotenv, None) as folder:
        env = {**without_secrets(), **environment}
        return subprocess.run(
            [PYINFRA, *arguments], cwd=folder, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )


def facts(host: Host, *names: str, inventory: str = INVENTORY, **options: str) -> tuple[dict[str, object], str]:
    """Each fact's reading of the host, and what pyinfra said."""
    done = pyinfra(
        inventory, "--limit", host.name, "--json", "-vv", "fact", *(f"facts.{name}" for name in names), **options
    )
    assert "Traceback" not in done.stderr, done.stderr
    found = {name: readings.get(host.name) for name, readings in json.loads(done.stdout).items()}
    return found, done.stderr


@pytest.fixture(scope="module")
def deployed(host: Host) -> Host:
    done = deploy(host, *QUICK)
    assert (done.code, done.changed) == (0, EVERYTHING), done.output
    return host


@pytest.fixture
def patient(tmp_path: Path) -> str:
    """The inventory; and a look is good for as long as a busy machine may take."""
    file = tmp_path / "inventory.py"
    file.write_text("import channel\nfrom tests.rehearsal.inventory import rehearsal\nchannel.MAX_AGE = 600\n")
    return str(file)


# --- facts


def test_every_fact_prints_its_reading_of_one_look(deployed: Host, patient: str) -> None:
    found, output = facts(deployed, *FACTS, inventory=patient)
    assert list(found) == [f"facts.{name}" for name in FACTS]
    reading = found["facts.pm2.Pm2"]
    assert isinstance(reading, dict)
    assert reading.pop("ending").startswith("it has 1.6 s (kill_timeout) to finish what it began, ")
    assert reading.pop("held_in").startswith("/proc/")
    nothing = {"shadowed": [], "fixed": [], "held": [], "folder": ""}
    assert reading == {"status": "online", "stale": False, **nothing}
    keys = found["facts.dotenv.Dotenv"]["keys"]  # type: ignore[index]  # a dict, as the next line shows
    assert keys["JWT_SECRET"] == {"kind": "set", "equal": False, "times": 1, "before": ""}
    assert len(found["facts.migration.Migration"]["relations"]) == 3  # type: ignore[index]  # as above
    assert output.count(LOOK) == 1, "not one look for all"


def test_a_fact_shows_no_secret_and_no_foreign_file(deployed: Host) -> None:
    secrets = [line.partition("=")[2].strip("'\"") for line in read(deployed, f"{APP}/.env").decode().splitlines()]
    own = tokens()
    found, output = facts(deployed, *FACTS, dotenv="".join(f"{key}={value}\n" for key, value in own.items()))
    shown = json.dumps(found, ensure_ascii=False) + output
    assert [value for value in [*own.values(), *secrets] if len(value) > 11 and value in shown] == []
    assert "server {" not in shown and "class WhatsAppSessionPool" not in shown


def test_a_fact_takes_no_lock_and_writes_nothing(deployed: Host) -> None:
    before = tree(deployed, "/etc", "/var/lib/ai-admin-deploy", "/var/log/ai-admin-deploy.jsonl", APP)
    facts(deployed, *FACTS)
    changed = differing(
        before, tree(deployed, "/etc", "/var/lib/ai-admin-deploy", "/var/log/ai-admin-deploy.jsonl", APP)
    )
    assert {path for path in changed if "/logs" not in path} == set()


def test_a_fact_that_cannot_be_read_says_why(deployed: Host) -> None:
    deployed.ssh("echo 'oops;' > /etc/nginx/conf.d/oops.conf")
    found, output = facts(deployed, "nginx.Nginx", "pm2.Pm2")
    deployed.ssh("rm /etc/nginx/conf.d/oops.conf")
    assert found["facts.nginx.Nginx"] is None
    assert 'unknown directive "oops"' in output
    assert found["facts.pm2.Pm2"] is not None
    assert deploy(deployed, *QUICK).changed == ["nginx reload"], "a folder that nginx reads has changed"


def test_a_fact_with_bad_input_says_why(deployed: Host) -> None:
    done = pyinfra(INVENTORY, "--limit", deployed.name, "fact", "facts.pm2.Pm2", dotenv="not a key\n")
    assert ".env: line 1 is not KEY=value" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_deploy_without_a_change_makes_one_look(deployed: Host, patient: str) -> None:
    done = deploy(deployed, *QUICK, "-y", "-vv", inventory=patient)
    assert (done.code, done.changed) == (0, [])
    assert done.output.count(LOOK) == 1
    plan = deploy(deployed, *QUICK, "--dry", "-vv", inventory=patient)
    assert plan.output.count(LOOK) == 1


def test_verification_at_the_end_of_a_run(deployed: Host) -> None:
    """Pending tokens are not an error; what is broken is."""
    command = [PYINFRA, INVENTORY, "deploy.py", "--limit", deployed.name, "-y", "--data", "verify=true"]
    for broken, code in ((False, 0), (True, 1)):
        if broken:
            deployed.ssh("systemctl disable -q nginx")
        done = subprocess.run(command, cwd=ROOT, env=without_secrets(), capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        assert f"\n{deployed.name}: " in done.stdout and "Nginx WebSocket" in done.stdout
    deployed.ssh("systemctl enable -q nginx")
    done = subprocess.run(
        [*command, "--data", 'outbound=["nowhere.rehearsal.test:1"]'],
        cwd=ROOT,
        env=without_secrets(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "nowhere.rehearsal.test" in done.stdout, "the run's own settings hold in it"


# --- operations


def test_a_step_is_sent_what_it_uses_and_nothing_else(host: Host, tmp_path: Path) -> None:
    """A look is sent the values to compare with, and the database; a step only its own."""
    host.reset()
    log = tmp_path / "sent"
    spy = f"""
import json, channel
real = channel.wire.pack
def pack(data):
    open({str(log)!r}, "a").write(json.dumps(data) + chr(10))
    return real(data)
channel.wire.pack = pack
"""
    runbook = spy + (ROOT / "deploy.py").read_text(encoding="utf-8")
    own = tokens()
    host.ssh("cd /; runuser -u postgres -- psql -qXc \"CREATE ROLE it LOGIN SUPERUSER PASSWORD 'its-password'\"")
    url = "postgresql://it:its-password@127.0.0.1/postgres"
    done = deploy(host, *QUICK, environment={**own, "DATABASE_URL": url}, runbook=runbook)
    assert (done.code, done.changed) == (0, EVERYTHING), done.output
    sent = [json.loads(line) for line in log.read_text().splitlines()]
    calls = [each[1] for each in sent if isinstance(each, list) and each[0] == "remote.step.step"]
    steps = {each["function"]: json.dumps(each["arguments"]) for each in calls}
    assert len(steps) == len(EVERYTHING)
    token = own["YCLIENTS_PARTNER_TOKEN"]
    assert [name for name, arguments in steps.items() if token in arguments] == ["remote.dotenv_edit.write"]
    assert [name for name, arguments in steps.items() if "its-password" in arguments] == ["remote.migration.migrate"]


ALONE = """
from operations import nginx

site = nginx.Site("ai-admin.app", "ai-admin.app", "/opt/ai-admin", 3000, True)
nginx.site(name="Site", site=site)
"""


def test_one_operation_alone_in_somebody_elses_deploy(host: Host, tmp_path: Path) -> None:
    """Without our deploy.py, settings and group_data: from a folder of their own, with the bundle on the path."""
    host.reset()
    (tmp_path / "deploy.py").write_text(ALONE)
    (tmp_path / "secrets.py").write_text((ROOT / "tests/converge/only_dotenv.py").read_text())
    before = tree(host, "/etc", APP)
    for expected in (2 * [[host.name]], 2 * [list[str]()]):
        done = subprocess.run(
            [PYINFRA, str(ROOT / INVENTORY), "deploy.py", "secrets.py", "--limit", host.name, "-y", "--json"],
            cwd=tmp_path,
            env={
                **without_secrets(),
                **tokens(),
                "YCLIENTS_APP_ID": "18289",
                "YCLIENTS_PARTNER_TOKEN": "a-token-of-ours",
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert [each["success"] for each in json.loads(done.stdout)["results"]["operations"]] == expected
    changed = {path for path in differing(before, tree(host, "/etc", APP)) if "/logs" not in path}
    site = {"/etc/nginx/sites-available/ai-admin.app", "/etc/nginx/sites-enabled/ai-admin.app"}
    assert changed == {f"{APP}/.env", *site}


# --- global arguments


USERS = """
for user in op pw; do
  useradd -m -s /bin/sh $user
  install -d -o $user -m 700 /home/$user/.ssh
  install -o $user -m 600 /root/.ssh/authorized_keys /home/$user/.ssh/
done
"""


@pytest.fixture(scope="module")
def operators(host: Host) -> Iterator[Host]:
    """Two users who may not read what is root's: `op` with sudo, `pw` with sudo and a password."""
    host.reset()
    host.ssh(
        "sh -eu",
        input=f"""{USERS}
        echo 'pw:correct horse' | chpasswd
        echo 'op ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/op
        echo 'pw ALL=(ALL) ALL' > /etc/sudoers.d/pw
        """,
    )
    yield host
    host.ssh("userdel -r op; userdel -r pw; rm /etc/sudoers.d/op /etc/sudoers.d/pw", check=False)


SUDO = """
from tests.rehearsal.inventory import rehearsal as _rehearsal
rehearsal = ([(name, {{**data, "ssh_user": {user!r}, **{data!r}}}) for name, data in _rehearsal], {group!r})
"""
WAYS: dict[str, tuple[str, dict[str, object], dict[str, object], tuple[str, ...]]] = {
    "host data": ("op", {"_sudo": True}, {}, ()),
    "group data": ("op", {}, {"_sudo": True}, ()),
    "--sudo": ("op", {}, {}, ("--sudo",)),
    "a password": ("pw", {"_sudo": True, "_sudo_password": "correct horse"}, {}, ()),
    "sudo and su": ("op", {"_sudo": True, "_su_user": "root"}, {}, ()),
}


@pytest.mark.parametrize("way", WAYS)
def test_sudo_from_wherever_pyinfra_takes_it(operators: Host, tmp_path: Path, way: str) -> None:
    """Look, lock, steps and rollback: what root does, `op` does too."""
    user, data, group, arguments = WAYS[way]
    inventory = tmp_path / "inventory.py"
    inventory.write_text(SUDO.format(user=user, data=data, group=group))
    first = deploy(operators, *QUICK, *arguments, inventory=str(inventory), environment=tokens())
    assert first.code == 0, first.output
    assert first.changed in (EVERYTHING, ["Secrets in .env", "API restart"]), first.output
    assert all(health_check(operators).values())
    again = deploy(operators, *QUICK, *arguments, inventory=str(inventory))
    assert (again.code, again.changed) == (0, []), again.output
    line = json.loads(operators.ssh("tail -n 2 /var/log/ai-admin-deploy.jsonl | head -n 1").stdout)
    assert (line["result"], line["from"]) == ("ok", operators.gateway), "sudo keeps no SSH_CONNECTION; it is found"
    rollback = (ROOT / "rollback.py").read_text(encoding="utf-8")
    back = deploy(operators, *QUICK, *arguments, inventory=str(inventory), runbook=rollback)
    assert (back.code, back.changed) == (0, ["Rollback"]), back.output
    assert apps(operators)["ai-admin-api"].status == "online"
    assert deploy(operators, *QUICK).code == 0, "and root finds nothing wrong"


def test_without_sudo_it_is_one_line(operators: Host, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.py"
    inventory.write_text(SUDO.format(user="op", data={}, group={}))
    for arguments in (["--dry"], []):
        done = deploy(operators, *QUICK, *arguments, inventory=str(inventory))
        assert done.code == 1
        assert "Traceback" not in done.output
        assert "root is needed: connect as root, or set _sudo" in done.output


@pytest.mark.parametrize("arguments", [["--dry"], []])
def test_sudo_that_asks_without_a_terminal_is_one_line(operators: Host, tmp_path: Path, arguments: list[str]) -> None:
    inventory = tmp_path / "inventory.py"
    inventory.write_text(SUDO.format(user="pw", data={}, group={}))
    done = deploy(operators, *QUICK, "--sudo", *arguments, inventory=str(inventory))
    assert done.code == 1
    assert "Traceback" not in done.output and "connection lost" not in done.output, done.output
    line = "sudo needs a password, and there is no terminal for it: set _sudo_password, or NOPASSWD"
    assert done.output.count(line) == 1, done.output


def test_su_with_a_password_is_refused(operators: Host, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.py"
    inventory.write_text(SUDO.format(user="op", data={"_su_user": "root", "_su_password": "x"}, group={}))
    done = deploy(operators, *QUICK, "--dry", inventory=str(inventory))
    assert done.code == 1
    assert "su with a password leaves our programs no standard input; use _sudo" in done.output


def test_env_reaches_the_host(operators: Host, tmp_path: Path) -> None:
    """PM2_HOME, say, where pm2 runs as another user: a wrong one, and pm2 is another."""
    inventory = tmp_path / "inventory.py"
    inventory.write_text(SUDO.format(user="root", data={"_env": {"PM2_HOME": "/nowhere"}}, group={}))
    done = deploy(operators, *QUICK, "--dry", inventory=str(inventory))
    assert "pm2 says no daemon" in done.output


def test_local(tmp_path: Path) -> None:
    """pyinfra's own @local: look, lock and step on this machine, in a mount namespace that keeps what they write."""
    app = tmp_path / "app"
    app.mkdir()
    (app / ".env").write_text("A=1\n")
    modules = next(Path("/var/cache/ai-admin-rehearsal").glob("app-*/opt/ai-admin/node_modules"))
    (app / "node_modules").symlink_to(modules)
    runbook = tmp_path / "deploy.py"
    values = {"YCLIENTS_APP_ID": "18289", "YCLIENTS_PARTNER_TOKEN": "a-token-of-ours"}
    call = f'dotenv.secrets(name="Secrets", path={str(app / ".env")!r}, values={values!r}, app="none")'
    runbook.write_text(f"from operations import dotenv\n{call}\n")
    private = 'for each in /run /var/log /var/lib /var/backups; do mount -t tmpfs tmpfs $each; done; exec "$@"'
    command = ["unshare", "--mount", "sh", "-euc", private, "sh", PYINFRA, "@local", str(runbook), "-y", "--json"]
    for expected in (["@local"], []):
        done = subprocess.run(
            [*command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert [each["success"] for each in json.loads(done.stdout)["results"]["operations"]] == [expected]
    lines = (app / ".env").read_text().splitlines()
    assert lines[:3] == ["A=1", "YCLIENTS_PARTNER_TOKEN=a-token-of-ours", "YCLIENTS_APP_ID=18289"]
    assert not Path("/var/lib/ai-admin-deploy").exists()

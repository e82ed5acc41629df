"""Several hosts: the canary first and then the others, as README says to type it; one broken of three; one database."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.converge.conftest import App, apps, health_check, only, sql
from tests.rehearsal.host import Host, of_this_run, until
from tests.rehearsal.story import EVERYTHING, PYINFRA, ROOT, copy_of_repository, tokens, without_secrets
from tests.verify.target import targets

pytestmark = [pytest.mark.slow, pytest.mark.long]

INVENTORY = "tests/rehearsal/fleet.py"
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN = tokens()
BOOT = "pm2-root.service"  # whether it is enabled, verification checks and deploy does not


@pytest.fixture(scope="module")
def fleet(host: Host) -> Iterator[list[Host]]:
    """Three pristine hosts, the canary first."""
    rest = [of_this_run("web1"), of_this_run("web2")]
    try:
        for each in rest:
            each.reset()
        names = {host.name, *(each.name for each in rest)}
        assert {target.name for target in targets(INVENTORY, [])} == names, "those of other runs are none of ours"
        yield [host, *rest]
    finally:
        for each in rest:
            each.down()


def run(command: str, environment: dict[str, str], runbook: str | None = None) -> tuple[int, str]:
    """A command of README's for `my.py`, typed in the bundle's folder; its exit code and what it printed."""
    with copy_of_repository(ROOT, None, runbook) as folder:
        bin = str(ROOT / ".venv/bin") if (ROOT / ".venv/bin/pyinfra").exists() else PYINFRA.rpartition("/")[0]
        done = subprocess.run(
            ["sh", "-c", command.replace("my.py", INVENTORY)],
            cwd=folder,
            env={**without_secrets(), **environment, "PATH": f"{bin}:/usr/sbin:/usr/bin:/sbin:/bin"},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


def in_short(output: str) -> dict[str, list[str]]:
    """By host, what the last summary says of it."""
    lines = re.findall(r"^ *\[(\w+)\] +(.*)", output.rpartition("--> In short:")[2], re.MULTILINE)
    return {name: [text for host, text in lines if host == name] for name, _ in lines}


def canary_first() -> str:
    """README's own command."""
    (found,) = re.findall(r"^ *(pyinfra my\.py deploy\.py -y --limit canary [^`]*)```", README, re.MULTILINE)
    return str(found)


def test_a_canary_that_is_not_ready_stops_the_run(fleet: list[Host]) -> None:
    """It is deployed as it should be; its verification alone fails."""
    canary, *rest = fleet
    before = [_state(each) for each in rest]
    canary.ssh(f"systemctl disable -q {BOOT}")
    code, output = run(canary_first(), OWN)
    canary.ssh(f"systemctl enable -q {BOOT}")
    assert code == 1
    assert all(health_check(canary).values()), "it has its tokens"
    assert "Over 0% of hosts failed" in output or "No hosts remaining" in output
    assert [_state(each) for each in rest] == before


def test_of_several_those_with_nothing_to_undo_are_left(fleet: list[Host]) -> None:
    canary, *rest = fleet
    assert all(health_check(canary).values())
    code, output = run("pyinfra my.py rollback.py -y", {})
    assert code == 0, output
    assert canary.ssh("grep -c YCLIENTS_PARTNER_TOKEN /opt/ai-admin/.env", check=False).stdout.strip() == "0"
    assert [each.ssh("ls -A /var/backups").stdout for each in rest] == ["", ""]


def test_the_first_of_the_rest_that_is_not_ready_stops_the_run(fleet: list[Host]) -> None:
    """Whichever that is: pyinfra (3.10) keeps no order."""
    _, *rest = fleet
    for each in rest:
        each.ssh(f"systemctl disable -q {BOOT}")
    before = {each.name: _state(each) for each in rest}
    code, output = run(canary_first(), OWN)
    for each in rest:
        each.ssh(f"systemctl enable -q {BOOT}")
    changed = [each.name for each in rest if _state(each) != before[each.name]]
    assert (code, len(changed)) == (1, 1), output
    (other,) = {each.name for each in rest} - {*changed}
    assert in_short(output) == {
        changed[0]: [f"changed: {', '.join(EVERYTHING)}", "failed: the red lines above say why, and what to do"],
        other: ["not started: nothing was changed there"],
    }


def test_one_that_is_refused_ends_the_run_before_anything_is_changed(fleet: list[Host]) -> None:
    *_, broken = fleet
    before = [_state(each) for each in fleet]
    broken.ssh("echo 'bogus on;' > /etc/nginx/conf.d/bogus.conf")
    code, output = run("pyinfra my.py deploy.py -y", tokens())
    broken.ssh("rm /etc/nginx/conf.d/bogus.conf")
    assert code == 1
    assert re.search(rf'nginx on {broken.name}: .* unknown directive "bogus"', output), output
    assert [_state(each) for each in fleet] == before


def test_one_that_fails_leaves_the_others_alone(fleet: list[Host]) -> None:
    """Without --fail-percent. What judges a new `.env` cannot be loaded there, which no plan sees."""
    *sound, broken = fleet
    own, modules = tokens(), "/opt/ai-admin/node_modules"
    broken.ssh(f"mv {modules}/dotenv {modules}/.dotenv")
    code, output = run("pyinfra my.py deploy.py -y --data settle_time=0", own)
    broken.ssh(f"mv {modules}/.dotenv {modules}/dotenv")
    assert code == 1, output
    short = in_short(output)
    assert short[broken.name][-1] == "failed: the red lines above say why, and what to do"
    for each in sound:
        assert "Secrets in .env" in short[each.name][0]
        assert short[each.name][1:] == [f"next: bin/verify {INVENTORY} --limit {each.name}"]
        assert all(health_check(each).values())

    code, output = run(canary_first(), own)
    assert code == 0, output
    assert all(health_check(broken).values())


RAISES = """
from pyinfra.api.operation import operation
from settings import BadInput

@operation()
def lost():
    if host.state.is_executing and host.name == "BROKEN":
        raise BadInput("the connection was lost; run again")
    yield "true"

lost(name="Look")
pm2.current(name="API restart", api=settings.api)
"""


@pytest.mark.parametrize("serial", ["", " --serial"])
def test_one_that_is_lost_in_a_look_leaves_the_others_alone(fleet: list[Host], serial: str) -> None:
    """pyinfra itself would end the run for all, and say that this one is as it should be."""
    *sound, broken = fleet
    own = tokens()
    runbook = only("Secrets in .env") + RAISES.replace("BROKEN", broken.name)
    code, output = run(f"pyinfra my.py deploy.py -y{serial} --data settle_time=0", own, runbook)
    assert code == 1, output
    assert f"[{broken.name}] the connection was lost; run again" in output
    short = in_short(output)
    assert "failed: the red lines above say why, and what to do" in short[broken.name]
    for each in sound:
        assert short[each.name][0] == "changed: Secrets in .env, API restart"
        assert own["YCLIENTS_PARTNER_TOKEN"] in each.ssh("cat /opt/ai-admin/.env").stdout
    code, output = run("pyinfra my.py deploy.py -y --data settle_time=0", OWN)
    assert code == 0, output


@pytest.fixture
def shared(fleet: list[Host]) -> str:
    """A database on the canary that the others reach: its address."""
    canary = fleet[0]
    sql(canary, "CREATE ROLE hosted LOGIN PASSWORD 's3cret'")
    sql(canary, "CREATE DATABASE shared OWNER hosted")
    sql(canary, "SET ROLE hosted; CREATE TABLE companies (id serial PRIMARY KEY, title text)", "shared")
    sql(canary, "ALTER SYSTEM SET listen_addresses = '*'")
    canary.ssh("echo 'host all all all scram-sha-256' >> /etc/postgresql/17/main/pg_hba.conf")
    canary.ssh("systemctl restart postgresql")
    return f"postgresql://hosted:s3cret@{canary.address}:5432/shared"


def test_one_database_is_migrated_once(fleet: list[Host], shared: str) -> None:
    """Both hosts have planned it, and are in it, before either is done: somebody holds the table until then."""
    canary, *_ = fleet
    migration = only("Database migration")
    holds = "BEGIN; LOCK companies IN ROW EXCLUSIVE MODE; SELECT pg_sleep(300)"
    holder = [*canary.ssh_command(), f"cd /; exec runuser -u postgres -- psql -Xqc '{holds}' shared"]
    locks = "FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE datname = 'shared'"
    with subprocess.Popen(holder, stdout=subprocess.PIPE, stderr=subprocess.PIPE), ThreadPoolExecutor() as pool:
        held = f"{locks} AND mode = 'RowExclusiveLock' AND granted AND query LIKE '%pg_sleep%'"
        until(60, "the lock", lambda: sql(canary, f"SELECT count(*) {held}") == "1")
        command = "pyinfra my.py deploy.py -y --limit web"
        running = pool.submit(run, command, {"DATABASE_URL": shared}, migration)
        waiting = f"SELECT count(*) {locks} AND NOT granted"
        until(120, "both to wait", lambda: running.done() or sql(canary, waiting) == "2")
        assert not running.done(), running.result()
        sql(canary, f"SELECT pg_terminate_backend(pid) {held}")
    code, output = running.result()
    assert code == 0, output
    assert output.count("was applied meanwhile, by the deploy of another host with this database") == 1
    assert sql(canary, "SELECT count(*) FROM ai_admin_deploy.migrations", "shared") == "1"
    code, output = run("pyinfra my.py deploy.py -y --limit web", {"DATABASE_URL": shared}, migration)
    assert (code, output.count("changed: nothing, it is as it should be")) == (0, 2), output


def _state(host: Host) -> tuple[str, App]:
    """Of what a deploy would change first and last."""
    env = host.ssh("sha256sum /opt/ai-admin/.env /opt/ai-admin/src/*/*/*.js /etc/nginx/sites-*/*").stdout
    return env, apps(host)["ai-admin-api"]

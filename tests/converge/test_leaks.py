"""No secret's value anywhere but in `.env` and its backups: at every verbosity, on both machines, at any moment."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.converge.operator import INVENTORY, ROOT, Operator
from tests.converge.watcher import PATIENCE, START, watching
from tests.rehearsal.host import Host

pytestmark = pytest.mark.slow

KEYS = ("YCLIENTS_PARTNER_TOKEN", "YCLIENTS_APP_ID", "JWT_SECRET")
FOREIGN = ("POSTGRES_PASSWORD", "SUPABASE_KEY", "REDIS_PASSWORD", "DEEPSEEK_API_KEY", "TELEGRAM_BOT_TOKEN")
FLAGS = (
    ["-v"],
    ["-vv"],
    ["-vvv"],
    ["--debug", "-vvv"],
    ["--debug-all", "-vvv"],
    ["--diff", "-vvv"],
    ["--dry", "-vvv"],
    ["--json", "-vvv"],
    ["--debug-operations", "-vvv"],
    ["--debug-operations", "--json"],
    ["--debug-facts", "-vvv"],
    ["--sudo", "-vvv", "--debug"],
)
# Where the values belong: the application's own file, and its backups, which only root can read.
HOME = re.compile(r"/(opt/ai-admin/\.env|var/backups/ai-admin-deploy/[^/]+/opt/ai-admin/\.env)")


def canary() -> str:
    return f"{START}{secrets.randbits(160):049}"


def foreign_secrets(host: Host) -> list[str]:
    """Five secrets of others in the host's `.env`, unique; two of them really used by the application."""
    old = (host.root / "opt/ai-admin/.env").read_text()
    own = {key: canary() for key in FOREIGN}
    for key, value in own.items():
        old, count = re.subn(rf"^{key}=.*$", f"{key}='{value}'", old, flags=re.MULTILINE)
        assert count == 1
    host.ssh("cat > /opt/ai-admin/.env", input=old)
    sql = f"ALTER ROLE ai_admin PASSWORD '{own['POSTGRES_PASSWORD']}'"
    host.ssh("cd /; runuser -u postgres -- psql -qX -v ON_ERROR_STOP=1", input=sql)
    redis = f"sed -i 's/^requirepass .*/requirepass {own['REDIS_PASSWORD']}/' /etc/redis/redis.conf"
    host.ssh("sh", input=f"{redis}\nsystemctl restart redis-server && rm -f /etc/redis/redis.conf.bak")
    return list(own.values())


def written_on(host: Host) -> Iterator[Path]:
    """Every file that the host wrote since it booted: the overlay's upper layer."""
    return (file for file in (host.folder / "upper").rglob("*") if file.is_file() and not file.is_symlink())


def test_no_secret_is_seen_anywhere_at_any_verbosity(leak_host: Host) -> None:
    foreign = foreign_secrets(leak_host)
    database_password = canary()
    role = f"CREATE ROLE owner_of_it LOGIN SUPERUSER PASSWORD '{database_password}'"
    leak_host.ssh("cd /; runuser -u postgres -- psql -qX -v ON_ERROR_STOP=1", input=role)
    url = f"postgresql://owner_of_it:{database_password}@127.0.0.1:5432/postgres"

    rounds = [{key: canary() for key in KEYS} for _ in FLAGS]
    own = [value for values in rounds for value in values.values()]
    values = [*own, *foreign, database_password]
    output = ""
    operator = Operator(leak_host, {})
    with watching(leak_host, values) as watcher:
        for flags, keys in zip(FLAGS, rounds, strict=True):
            operator.write({**keys, "DATABASE_URL": url})
            done = watcher.during(partial(operator.run, "-y", "--data", "settle_time=0", *flags))
            assert done.returncode == 0, f"{flags}\n{done.stderr[-3000:]}"
            output += done.stdout + done.stderr
        done = operator.run("--json", deploy="debug-inventory")
        output += done.stdout + done.stderr
        reports = [leak_host.folder / f"report.{kind}" for kind in ("json", "junit", "html")]
        verify = [sys.executable, "-m", "tests.verify", INVENTORY, "--limit", leak_host.name]
        verify += [word for file in reports for word in (f"--{file.suffix[1:]}", str(file))]
        done = watcher.during(partial(subprocess.run, verify, cwd=ROOT, capture_output=True, text=True))
        output += done.stdout + done.stderr + "".join(file.read_text() for file in reports)
    assert "10 ready" in output, "the deploys did not do their work, so their silence proves nothing"
    assert "+YCLIENTS_PARTNER_TOKEN: set, " in output, "--diff told nothing, so its silence proves nothing"
    assert watcher.hits == set()
    assert [value for value in values if value in output] == []

    # What stays behind: journal, logs, pm2's dump, shell history, temporary files … whatever was written at all.
    needles = [value.encode() for value in values]
    kept = [file for file in written_on(leak_host) if any(needle in file.read_bytes() for needle in needles)]
    upper = leak_host.folder / "upper"
    allowed = [file for file in kept if HOME.fullmatch(f"/{file.relative_to(upper)}")]
    others = [str(file.relative_to(upper)) for file in kept if file not in allowed]
    assert others == ["etc/redis/redis.conf"], "where the test itself put a password, and nowhere else"
    assert len(allowed) >= 2, "the values are in .env and in a backup of it"
    assert {file.stat().st_mode & 0o077 for file in allowed} == {0}
    assert (upper / "var/backups/ai-admin-deploy").stat().st_mode & 0o077 == 0
    assert not (operator.folder / "pyinfra-debug.log").exists(), "where pyinfra would write what it crashed on"


def test_a_failing_run_shows_no_secret_either(leak_host: Host) -> None:
    """Errors quote what they choke on: a crashing app's log, a step that refuses, a broken `.env`."""
    keys = {key: canary() for key in KEYS}
    operator = Operator(leak_host, keys)
    show = 'console.error("my secrets:", process.env.YCLIENTS_PARTNER_TOKEN, process.env.JWT_SECRET)'
    crash = f"{show}; process.exit(1)"
    leak_host.ssh("cat >> /opt/ai-admin/src/config.js", input=f"{crash}\n")
    try:
        with watching(leak_host, list(keys.values())) as watcher:
            done = watcher.during(partial(operator.run, "-y", "-vvv", "--debug"))
    finally:
        leak_host.ssh("cd /opt/ai-admin && sed -i '$d' src/config.js && pm2 restart ai-admin-api && pm2 flush")
    assert done.returncode == 1
    assert "my secrets: **** ****" in done.stderr, "the log's end was not shown, so nothing was masked"
    assert [value for value in keys.values() if value in done.stdout + done.stderr] == []
    assert watcher.hits == set()


@pytest.mark.parametrize(
    "leak",
    [
        "sh -c 'HOLD' VALUE",
        "env LEAK=VALUE sh -c 'HOLD'",
        "echo VALUE > /tmp/leak; HOLD; rm /tmp/leak",
        "echo VALUE > /run/leak; HOLD; rm /run/leak",
        "echo VALUE > /dev/shm/leak; HOLD; rm /dev/shm/leak",
    ],
)
def test_the_watcher_catches_a_planted_leak(leak_host: Host, leak: str) -> None:
    value = canary()
    shell = leak.replace("VALUE", value).replace("HOLD", "echo planted; read end")
    with watching(leak_host, [value]) as watcher:
        command = [*leak_host.ssh_command(), "sh"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as planting:
            assert planting.stdin and planting.stdout
            print(shell, file=planting.stdin, flush=True)
            assert planting.stdout.readline() == "planted\n"
            watcher.look()
            print("end", file=planting.stdin, flush=True)
    assert watcher.hits


def test_a_run_that_was_not_looked_at_is_noticed(leak_host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Event()

    def lives_until_then() -> int:
        with subprocess.Popen([*leak_host.ssh_command(), "cat"], stdin=subprocess.PIPE) as running:
            looked.wait(PATIENCE)
        return running.returncode

    with watching(leak_host, []) as watcher:
        look = watcher.look

        def look_and_say_so() -> None:
            look()
            looked.set()

        monkeypatch.setattr(watcher, "look", look_and_say_so)
        assert watcher.during(lives_until_then) == 0
        with pytest.raises(AssertionError, match="no program of the run was seen"):
            watcher.during(lambda: None)

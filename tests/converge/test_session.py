"""One deploy at a time, and the audit log."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from remote import session
from tests.converge.conftest import only
from tests.rehearsal.host import Host, until
from tests.rehearsal.story import INVENTORY, ROOT, copy_of_repository, deploy, tokens, without_secrets
from tests.resilience.guardian import mute

pytestmark = pytest.mark.slow

AUDIT = "/var/log/ai-admin-deploy.jsonl"
FAST = ("--data", "settle_time=0", "--data", "start_timeout=300")
PATIENCE = 200  # seconds, less than lock_wait below: for what takes one, on a machine that is busy with other things


@pytest.fixture(scope="module", autouse=True)
def converged(leak_host: Host) -> None:
    assert deploy(leak_host, *FAST).code == 0


def audit(host: Host) -> list[dict[str, Any]]:
    return [json.loads(line) for line in host.ssh(f"cat {AUDIT}").stdout.splitlines()]


# `/run/here` says that it is reached, `/run/go` that it may end; by itself after 10 minutes
LOOP = "touch /run/here; for n in $(seq 600); do [ ! -e /run/go ] || break; sleep 1; done"
OURS = "pgrep -f '[#] ai-admin-deploy|[t]ouch /run/here'"  # the loop outlives a client that was killed
WAIT = f"""
from pyinfra.operations import server
server.shell(name="Wait", commands=["{LOOP}"])
"""
LATER = "pm2.current(name='API restart', api=settings.api)\n"


def test_a_dead_network_ends_the_run(leak_host: Host) -> None:
    """Nothing that is sent arrives, and nothing says so: the host gives the deploy up, and so must we."""
    with deploying(leak_host, {**without_secrets(), **tokens()}) as process, mute(leak_host):
        output = process.communicate(timeout=PATIENCE)[0]
    assert (process.returncode, "Traceback" in output) == (1, False), output


@contextmanager
def deploying(
    host: Host, environment: dict[str, str], beat: int = session.BEAT, later: str = LATER
) -> Iterator[subprocess.Popen[str]]:
    """Another operator's deploy, which has written `.env` and goes no further: it holds the lock until the block ends.

    `beat`: seconds between the client's signs of life. `later`: the operations to come.
    """
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    command = [pyinfra, INVENTORY, "deploy.py", "--limit", host.name, "-y", *FAST]
    with copy_of_repository(ROOT, None, only("Secrets in .env") + WAIT + later) as folder:
        (folder / "remote").unlink()
        shutil.copytree(ROOT / "remote", folder / "remote")
        text = (folder / "remote/session.py").read_text()
        (folder / "remote/session.py").write_text(text.replace(f"BEAT = {session.BEAT} ", f"BEAT = {beat} "))
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            while host.ssh("rm /run/here", check=False).returncode != 0:
                assert process.poll() is None, process.communicate()[0]
            yield process
        finally:
            process.kill()
            process.wait(PATIENCE)
            host.ssh("touch /run/go")
            until(PATIENCE, "its session and its loop to end", lambda: host.ssh(OURS, check=False).returncode != 0)
            host.ssh("rm -f /run/go")


def test_the_second_operator_is_told_who_deploys(leak_host: Host) -> None:
    with deploying(leak_host, tokens()):
        done = deploy(leak_host, *FAST)
        assert done.code == 75
        assert done.changed == []
        words = next(line for line in done.output.splitlines() if "has been deploying since" in line)
        assert "@" in words and leak_host.gateway in words and "--data lock_wait=60" in words
        assert deploy(leak_host, "--dry").code == 0, "a plan takes no lock"


def test_a_killed_deploy_leaves_no_lock_but_a_line(leak_host: Host) -> None:
    with deploying(leak_host, tokens()) as other:
        other.kill()
        until(PATIENCE, "the line", lambda: audit(leak_host)[-1]["result"] == "cut off")
        assert audit(leak_host)[-1]["files"] == ["/opt/ai-admin/.env"]
        assert deploy(leak_host, *FAST).code == 0


SECRETS = "sha256sum /opt/ai-admin/.env"


def test_what_a_dead_client_left_half_done_is_put_back(leak_host: Host) -> None:
    """Killed between `.env` and the restart: a token that the API does not survive would take it down months later."""
    before = leak_host.ssh(SECRETS).stdout
    with deploying(leak_host, tokens()) as client:
        assert leak_host.ssh(SECRETS).stdout != before
        client.kill()
        until(PATIENCE, "the old .env", lambda: leak_host.ssh(SECRETS).stdout == before)
    until(PATIENCE, "the line", lambda: audit(leak_host)[-1].get("put_back") == ["/opt/ai-admin/.env"])
    assert audit(leak_host)[-1]["result"] == "cut off"
    leak_host.ssh("pm2 restart ai-admin-api")
    until(PATIENCE, "the API", lambda: leak_host.ssh("curl -sf localhost:3000/health", check=False).returncode == 0)
    assert deploy(leak_host, *FAST).code == 0


def test_a_laptop_that_sleeps_is_as_a_dead_one(leak_host: Host) -> None:
    """Nothing closes its connection, for a quarter of an hour where its power is gone. When it wakes up it is told."""
    before = leak_host.ssh(SECRETS).stdout
    with deploying(leak_host, tokens(), beat=2) as client:
        client.send_signal(signal.SIGSTOP)
        until(PATIENCE, "the old .env", lambda: leak_host.ssh(SECRETS).stdout == before)
        until(PATIENCE, "the line", lambda: audit(leak_host)[-1]["result"] == "cut off")
        assert deploy(leak_host, "--data", "settle_time=1").code == 0, "nobody else has to wait"
        leak_host.ssh("touch /opt/ai-admin/.env /run/go")
        client.send_signal(signal.SIGCONT)
        said = client.communicate(timeout=PATIENCE)[0]
        assert client.returncode == 1
        assert "the host ended this deploy because it no longer heard from this machine; run again" in said
    assert deploy(leak_host, *FAST).code == 0


def test_it_is_told_though_no_look_comes_any_more(leak_host: Host) -> None:
    """Of a deploy that writes secrets alone, say: all that it was asked is done, and is back as it was."""
    before = leak_host.ssh(SECRETS).stdout
    with deploying(leak_host, tokens(), beat=2, later="") as client:
        client.send_signal(signal.SIGSTOP)
        until(PATIENCE, "the old .env", lambda: leak_host.ssh(SECRETS).stdout == before)
        until(PATIENCE, "the line", lambda: audit(leak_host)[-1]["result"] == "cut off")
        leak_host.ssh("touch /run/go")
        client.send_signal(signal.SIGCONT)
        said = client.communicate(timeout=PATIENCE)[0]
        assert client.returncode == 1
        assert "put back, because nothing had loaded it yet: /opt/ai-admin/.env" in said
        assert "the host ended this deploy because it no longer heard from this machine; run again" in said
        assert "failed: the red lines above say why" in said


HANG = r"""cp -p /opt/ai-admin/src/index.js /root/index.js
hang="require('fs').writeFileSync('/run/hangs', ''); return setInterval(() => {}, 1e6)"
sed -i "1i if (require('fs').readFileSync('.env', 'utf8').includes('$1')) { $hang; }" /opt/ai-admin/src/index.js
"""


def test_what_systemd_started_on_what_is_put_back_is_restarted(leak_host: Host) -> None:
    """pm2's daemon dies after a token was written that the API does not survive; then so does the client."""
    environment = tokens()
    leak_host.ssh(f"sh -eu -s '{environment['YCLIENTS_PARTNER_TOKEN']}'", input=HANG)
    answers = "curl -sf --max-time 1 localhost:3000/health"
    try:
        with deploying(leak_host, environment) as client:
            leak_host.ssh("kill -9 $(cat /root/.pm2/pm2.pid)")
            until(PATIENCE, "it to hang", lambda: leak_host.ssh("rm /run/hangs", check=False).returncode == 0)
            client.kill()
            until(PATIENCE, "the API", lambda: leak_host.ssh(answers, check=False).returncode == 0)
        assert audit(leak_host)[-1]["put_back"] == ["/opt/ai-admin/.env"]
    finally:
        leak_host.ssh("cp -p /root/index.js /opt/ai-admin/src/index.js")
    assert deploy(leak_host, *FAST).code == 0


def test_an_sshd_that_allows_two_channels_at_once_is_enough(leak_host: Host) -> None:
    """The session's and the step's. The next step's program, which is started while one runs, is a third."""
    refused = "journalctl -q -o cat -t sshd -t sshd-session -g 'no more sessions' | wc -l"
    assert leak_host.ssh(refused).stdout.strip() == "0"
    leak_host.ssh("echo MaxSessions 2 > /etc/ssh/sshd_config.d/few.conf; systemctl reload ssh")
    try:
        done = deploy(leak_host, *FAST, environment=tokens())
    finally:
        leak_host.ssh("rm /etc/ssh/sshd_config.d/few.conf; systemctl reload ssh")
    assert (done.code, done.changed) == (0, ["Secrets in .env", "API restart"])
    assert int(leak_host.ssh(refused).stdout) > 0
    until(PATIENCE, "what got no input to end", lambda: leak_host.ssh(OURS, check=False).returncode != 0)


def test_it_can_wait(leak_host: Host) -> None:
    with deploying(leak_host, tokens()) as other, ThreadPoolExecutor() as pool:
        waiting = pool.submit(deploy, leak_host, *FAST, "--data", "lock_wait=300")
        opened = "ls -l /proc/[0-9]*/fd | grep -c /run/ai-admin-deploy/deploy.lock"
        until(PATIENCE, "the second deploy to wait", lambda: leak_host.ssh(opened, check=False).stdout.strip() == "2")
        other.kill()
        assert waiting.result().code == 0


def test_the_audit_line(leak_host: Host) -> None:
    own = tokens()
    assert deploy(leak_host, *FAST, environment=own).code == 0
    line = audit(leak_host)[-1]
    assert line["result"] == "ok"
    assert line["changed"] == ["Secrets in .env", "API restart"]
    assert line["files"] == ["/opt/ai-admin/.env"]
    assert "@" in line["who"] and line["from"] == leak_host.gateway
    key = subprocess.run(
        ["ssh-keygen", "-lf", "/var/lib/ai-admin-rehearsal/id_ed25519.pub"], capture_output=True, text=True
    )
    assert line["key"] in key.stdout and line["key"].startswith("SHA256:")
    assert line["bundle"] not in ("", "unknown")
    text = leak_host.ssh(f"cat {AUDIT}").stdout
    assert not any(value in text for value in own.values())
    assert leak_host.ssh(f"stat -c '%a %U' {AUDIT}").stdout.split() == ["640", "root"]


def test_a_failed_deploy_is_in_the_audit_log(leak_host: Host) -> None:
    leak_host.ssh("echo 'process.exit(1);' >> /opt/ai-admin/src/config.js")
    try:
        assert deploy(leak_host, *FAST).code == 1
        assert audit(leak_host)[-1]["result"] == "failed"
    finally:
        leak_host.ssh("sed -i '$d' /opt/ai-admin/src/config.js")
        assert deploy(leak_host, *FAST).code == 0


def test_the_audit_log_is_rotated(leak_host: Host) -> None:
    leak_host.ssh(f"head -c 1000001 /dev/zero > {AUDIT}; rm -f {AUDIT}.1")
    assert deploy(leak_host, *FAST).code == 0
    assert len(audit(leak_host)) == 1
    assert leak_host.ssh(f"stat -c %s {AUDIT}.1").stdout.strip() == "1000001"

"""README's "Watching for drift" where a real systemd is: on a rehearsal host, which deploys to itself over ssh."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.converge.conftest import QUICK
from tests.rehearsal.host import Host, until
from tests.rehearsal.story import ROOT, deploy

pytestmark = [pytest.mark.slow, pytest.mark.long]

FOLDER = "/root/ai-admin-deploy"
SERVICE, TIMER = "ai-admin-drift@root.service", "ai-admin-drift@root.timer"
MESSAGE = '(cat; echo "exit code $EXIT_STATUS") >/root/message'
KEY = """
cd /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f id_ed25519 && cat id_ed25519.pub >> authorized_keys
echo "127.0.0.1 $(cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub)" > known_hosts
"""
MY = 'servers = [("here", {"ssh_hostname": "127.0.0.1", "ssh_user": "root", "ssh_strict_host_key_checking": "yes"})]\n'
# Not at seven in the morning, but a second after it is started
SOON = "[Timer]\nOnCalendar=\nOnActiveSec=1s\nAccuracySec=1ms\n"


def readme() -> str:
    """README's own commands, as root types them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```sh\n([^`]*ai-admin-drift[^`]*)^```", text, re.MULTILINE)
    return re.sub("^MESSAGE=.*", f"MESSAGE='{MESSAGE}'".replace("$", r"\\$"), block.replace("sudo ", ""), flags=re.M)


@pytest.fixture(scope="module")
def watched(host: Host) -> Host:
    """It is converged, and has the bundle and the timer."""
    assert deploy(host, *QUICK).code == 0
    without = [f"--exclude=./{name}" for name in (".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache")]
    bundle = subprocess.run(["tar", "-cC", str(ROOT), *without, "."], capture_output=True, check=True).stdout
    command = [*host.ssh_command(), f"mkdir {FOLDER} && tar -xC {FOLDER}"]
    subprocess.run(command, input=bundle, check=True)
    host.ssh("sh -e", input=KEY)
    host.ssh(f"cat > {FOLDER}/my.py", input=MY)
    host.ssh(f"cd {FOLDER} && bin/setup", timeout=1800)
    host.ssh("sh -e", input=f"cd {FOLDER}\nUSER=root\n{readme()}")
    return host


def run(host: Host) -> tuple[str, str]:
    """Once, by the timer: the exit code, and the message; empty where none was sent."""
    host.ssh("rm -f /root/message")
    ended = f"systemctl show --value -p ExecMainExitTimestampMonotonic {SERVICE}"
    before = host.ssh(ended).stdout
    host.ssh(f"systemctl restart {TIMER}")
    state = f"systemctl show --value -p ActiveState {SERVICE}"
    until(
        600, "it", lambda: host.ssh(ended).stdout != before and host.ssh(state).stdout.strip() in ("inactive", "failed")
    )
    code = host.ssh(f"systemctl show --value -p ExecMainStatus {SERVICE}").stdout.strip()
    return code, host.ssh("cat /root/message", check=False).stdout


def test_it_is_every_morning(watched: Host) -> None:
    assert " 07:00:00 " in watched.ssh(f"systemctl show --value -p NextElapseUSecRealtime {TIMER}").stdout
    assert watched.ssh(f"systemctl is-enabled {TIMER}").stdout.strip() == "enabled"


def test_a_message_is_sent_only_where_something_is_wrong(watched: Host) -> None:
    watched.ssh(f"mkdir /etc/systemd/system/{TIMER}.d && cat > /etc/systemd/system/{TIMER}.d/soon.conf", input=SOON)
    watched.ssh("systemctl daemon-reload")
    assert run(watched) == ("0", "")
    assert "here: is as deploy would make it" in watched.ssh(f"journalctl -u {SERVICE}").stdout

    watched.ssh("touch /opt/ai-admin/.env")
    code, message = run(watched)
    assert (code, message.splitlines()[0]) == ("3", "here: differs in API restart")
    assert message.endswith("exit code 3\n")
    assert watched.ssh(f"systemctl is-failed {SERVICE}").stdout.strip() == "failed"

    watched.ssh("echo 'bogus on;' > /etc/nginx/conf.d/bogus.conf")
    code, message = run(watched)
    assert code == "1" and 'unknown directive "bogus"' in message and message.endswith("exit code 1\n")

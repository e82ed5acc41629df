"""A key that can only converge, as README sets it up: with it a deploy and its rollback run, and nothing else does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import channel
from tests.converge.conftest import QUICK, health_check
from tests.converge.test_pyinfra import SUDO
from tests.rehearsal.host import KEY, Host
from tests.rehearsal.story import EVERYTHING, ROOT, deploy, tokens

pytestmark = pytest.mark.slow

README = (ROOT / "README.md").read_text(encoding="utf-8")
ROLLBACK = (ROOT / "rollback.py").read_text(encoding="utf-8")
ENTRY, KNOWN, KEYS = "/usr/local/sbin/ai-admin-converge", "/etc/ai-admin-converge", "/root/.ssh/authorized_keys"


@pytest.fixture(scope="module")
def key(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    file = tmp_path_factory.mktemp("key") / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    [before] = re.findall(r"^ *(restrict,command=\".*\") ", README, re.MULTILINE)
    host.ssh(f"umask 22; cat > {ENTRY}", input=(ROOT / ENTRY.replace("/", "files/", 1)).read_text())
    host.ssh(f"umask 22; cat > {KNOWN}", input=channel.digests())
    host.ssh(f"cp -p {KEYS} /root/keys; cat >> {KEYS}", input=f"{before} {file.with_suffix('.pub').read_text()}")
    yield file
    host.ssh(f"mv /root/keys {KEYS}; rm {ENTRY} {KNOWN}")


def ssh(host: Host, key: Path, *words: str) -> subprocess.CompletedProcess[str]:
    options = ["-F", str(host.ssh_config), "-o", "ControlPath=none", "-o", "IdentitiesOnly=yes", "-i", str(key)]
    return subprocess.run(["ssh", *options, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)


def test_it_can_converge_and_roll_back(host: Host, key: Path, tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.py"
    inventory.write_text(SUDO.format(user="root", data={"ssh_key": str(key)}, group={}))
    own = tokens()
    first = deploy(host, *QUICK, environment=own, inventory=str(inventory))
    assert (first.code, first.changed) == (0, EVERYTHING), first.output
    assert all(health_check(host).values())
    again = deploy(host, *QUICK, environment=own, inventory=str(inventory))
    assert (again.code, again.changed) == (0, []), again.output
    back = deploy(host, *QUICK, runbook=ROLLBACK, inventory=str(inventory))
    assert (back.code, back.changed) == (0, ["Rollback"]), back.output

    words = [sys.executable, "-m", "tests.verify", str(inventory), "--limit", host.name]
    refused = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1), refused.stderr
    assert "this key can only converge: this is not one of its programs" in refused.stderr
    host.ssh(f"sed -i '/the modules/d' {KNOWN}")  # as of an older bundle
    older = deploy(host, *QUICK, inventory=str(inventory))
    assert older.code == 1 and older.output.count("its list is for another version of the bundle") == 1
    assert "Traceback" not in older.output


@pytest.mark.parametrize("command", ["", "id", "sh -c id", "cat /etc/shadow", "python3 -I -S -c 1"])
def test_nothing_else_runs(host: Host, key: Path, command: str) -> None:
    done = ssh(host, key, host.name, *([command] if command else []))
    assert (done.returncode, done.stdout) == (1, "")
    assert "this key can only converge" in done.stderr


def test_no_port_comes_through(host: Host, key: Path) -> None:
    assert ssh(host, KEY, "-W", "127.0.0.1:22", host.name).stdout.startswith("SSH-2.0"), "root's own key can"
    assert ssh(host, key, "-W", "127.0.0.1:22", host.name).stdout == ""

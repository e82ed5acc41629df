"""bin/verify as another user than root: with pyinfra's `_sudo`, the table is the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.detection.conftest import Verified, altered, verify
from tests.rehearsal.host import Host
from tests.rehearsal.story import ROOT

PASSWORD = "pa ss'$word"
ADD_USERS = f"""
set -e
for user in op oppw; do
    useradd --create-home --shell /bin/sh $user
    install -D -m 600 -o $user /root/.ssh/authorized_keys /home/$user/.ssh/authorized_keys
    chown $user /home/$user/.ssh
done
chpasswd <<'END'
oppw:{PASSWORD}
END
printf 'op ALL=(ALL) NOPASSWD: ALL\\noppw ALL=(ALL) ALL\\n' > /etc/sudoers.d/operators
"""
REMOVE_USERS = "rm -f /etc/sudoers.d/operators; for user in op oppw; do userdel --remove $user; done"


@pytest.fixture(scope="module")
def operators(ver: Host) -> Iterator[Host]:
    """The host with two more users: `op` has sudo without a password, `oppw` with one."""
    try:
        ver.ssh("sh", "-s", input=ADD_USERS)
        yield ver
    finally:
        ver.ssh("sh", "-s", input=REMOVE_USERS, check=False)


WAYS: dict[str, dict[str, object]] = {
    "sudo": {"ssh_user": "op", "_sudo": True},
    "sudo with a login shell": {"ssh_user": "op", "_sudo": True, "_use_sudo_login": True},
    "sudo with a password": {"ssh_user": "oppw", "_sudo": True, "_sudo_password": PASSWORD},
    "a password that sudo does not ask for": {"ssh_user": "op", "_sudo": True, "_sudo_password": PASSWORD},
    "sudo, then su": {"ssh_user": "op", "_sudo": True, "_su_user": "root"},
    "root, with a shell and a folder": {"_shell_executable": "bash", "_chdir": "/", "_env": {"COLOUR": "sky blue"}},
}


def without_days(table: dict[str, Any]) -> Any:
    """Without the days that the certificate is valid for: one may end between the two runs."""
    return json.loads(re.sub(r"valid for \d+ days", "valid", json.dumps(table)))


def told(found: Verified) -> dict[str, tuple[str, str]]:
    """Of each check its status and evidence: a difference names its check."""
    rows = without_days(found.table)["rows"]
    return {check["name"]: (check["status"], check["evidence"]) for row in rows for check in row["checks"]}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_the_table_is_the_same(operators: Host, sound: Verified, tmp_path: Path, way: str) -> None:
    found = verify(operators, tmp_path, inventory=altered(tmp_path, **WAYS[way]))
    assert found.code == 0, found.output
    assert told(found) == told(sound)
    own = {"deploy": sound.table["deploy"]}  # it names the inventory that was used
    assert without_days({**found.table, **own}) == without_days(sound.table)
    assert PASSWORD not in found.output + (tmp_path / "verify.json").read_text(encoding="utf-8")


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "no password": ({"ssh_user": "oppw", "_sudo": True}, "sudo: a password is required"),
    "a wrong password": ({"ssh_user": "oppw", "_sudo": True, "_sudo_password": "x"}, "incorrect password attempts"),
    "su with a password": ({"ssh_user": "op", "_su_user": "root", "_su_password": "x"}, "cannot use _su_password"),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", REFUSED)
def test_a_refusal_is_one_line(operators: Host, tmp_path: Path, way: str) -> None:
    data, reason = REFUSED[way]
    command = [sys.executable, "-m", "tests.verify", altered(tmp_path, **data), "--limit", operators.name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr and len(done.stderr.splitlines()) == 1

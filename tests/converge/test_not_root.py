"""Who logs in makes no difference: root, sudo with README's own line for it, the same with a password.

The application belongs to a user of its own, whose pm2 runs it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.converge.conftest import APP, QUICK, health_check, owned, verify
from tests.converge.test_pyinfra import SUDO, USERS
from tests.converge.test_shapes import ANOTHER_USER, not_of_the_user, shape
from tests.rehearsal import image
from tests.rehearsal.host import Host
from tests.rehearsal.story import ROOT, deploy, tokens, without_secrets

pytestmark = [pytest.mark.slow, pytest.mark.long]

PASSWORD = "pa ss'$word"
LINES = re.findall(r"^ *(deploy ALL=.*)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
ROLLBACK = (ROOT / "rollback.py").read_text(encoding="utf-8")
WAYS: dict[str, tuple[str, dict[str, object]]] = {
    "root": ("root", {}),
    "sudo": ("op", {"_sudo": True}),
    "sudo with a password": ("pw", {"_sudo": True, "_sudo_password": PASSWORD}),
}
CREDENTIALS = """
chpasswd
visudo -cqf /etc/sudoers.d/op && visudo -cqf /etc/sudoers.d/pw
"""


@pytest.fixture(scope="module")
def operators(host: Host) -> Iterator[Host]:
    """Deployed to without tokens."""
    package = f"{APP}/node_modules/socket.io".lstrip("/")
    shutil.copytree(image.layers()[0] / package, host.root / package)  # the API starts anew under its user
    shape(host, ANOTHER_USER)
    [line] = LINES
    for user, its in (("op", line.replace("(root)", "(root) NOPASSWD:")), ("pw", line)):
        host.ssh(f"umask 227; cat > /etc/sudoers.d/{user}", input=f"{its.replace('deploy', user, 1)}\n")
    host.ssh(f"sh -euc '{USERS}{CREDENTIALS}'", input=f"pw:{PASSWORD}\n")
    assert deploy(host, *QUICK).code == 0
    yield host
    host.ssh("userdel -r op; userdel -r pw; rm /etc/sudoers.d/op /etc/sudoers.d/pw", check=False)


def drift(host: Host, inventory: str, environment: dict[str, str]) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.verify", inventory, "--limit", host.name, "--drift"]
    variables = {**without_secrets(), **environment}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    return done.returncode, done.stdout


def files(host: Host) -> dict[str, str]:
    """Type, mode, owner and content of all that is neither our backups nor our notes."""
    return {path: what for path, what in owned(host).items() if path.startswith(("/etc/", APP))}


def all_of_it(host: Host, inventory: str, own: dict[str, str]) -> dict[str, Any]:
    """Drift, tokens come, verification, the way back: what each said, and what the host is then."""
    lacking = drift(host, inventory, own)
    done = deploy(host, *QUICK, environment=own, inventory=inventory)
    verified = verify(host, inventory)
    with_tokens = files(host)
    back = deploy(host, *QUICK, runbook=ROLLBACK, inventory=inventory)
    return {
        "deploy": (done.code, done.changed, done.pending),
        "verify": (verified.code, verified.checks, verified.rows),
        "drift": lacking,
        "with tokens": with_tokens,
        "rollback": (back.code, back.changed),
        "health check": health_check(host),
        "without tokens": files(host),
        "of others": not_of_the_user(host),
    }


def test_root_sudo_and_sudo_with_a_password_do_the_same(operators: Host, tmp_path: Path) -> None:
    own, found = tokens(), {}
    for way, (user, data) in WAYS.items():
        inventory = tmp_path / "inventory.py"
        inventory.write_text(SUDO.format(user=user, data=data, group={}))
        found[way] = all_of_it(operators, str(inventory), own)
        assert PASSWORD not in json.dumps(found[way])
    root = found.pop("root")
    assert root["deploy"] == (0, ["Secrets in .env", "API restart"], [])
    assert (root["verify"][0], {*root["verify"][2].values()}) == (0, {"ready"})
    assert (root["drift"][0], root["rollback"]) == (3, (0, ["Rollback"]))
    assert "differs in Secrets in .env, API restart" in root["drift"][1]
    assert root["of others"] == ""
    for way, its in found.items():
        assert its == root, way


def test_what_the_user_of_the_api_may_not_read_is_seen(operators: Host) -> None:
    """All else is read as root, and dotenv says nothing of a file that it may not read."""
    own = operators.ssh(f"stat -c %U {APP}/.env").stdout.strip()
    operators.ssh(f"chown root:root {APP}/.env")
    verified = verify(operators)
    operators.ssh(f"chown {own}: {APP}/.env")
    assert (verified.code, verified.rows["Endpoints"]) == (1, "failing")
    said = " ".join(verified.output.split())
    assert f"pm2's user {own} cannot read {APP}/.env" in said and f"chown -R {own} {APP}/.env" in said
    operators.ssh(f"mkdir -p {APP}/baileys_sessions/company_1; chown {own} {APP}/baileys_sessions")
    sessions = verify(operators)
    operators.ssh(f"rm -r {APP}/baileys_sessions; stat -c %a {APP} > /root/mode; chown root: {APP}; chmod 700 {APP}")
    folder = verify(operators)
    operators.ssh(f"chown {own}: {APP}; chmod $(cat /root/mode) {APP}")
    assert f"pm2's user {own} cannot enter {APP}" in " ".join(folder.output.split())
    assert f"cannot write to all of {APP}/baileys_sessions" in " ".join(sessions.output.split())


@pytest.mark.parametrize(
    ("command", "is_allowed"),
    [
        ("id", False),
        ("sh", False),
        ("sh -c id", False),
        ("sh -c 'id; python3 -I -S -c 1'", False),
        ("python3 -I -S -c 1", False),
        ("-u app sh -c 'python3 -I -S -c 1'", False),
        # README says so: it keeps mistakes away, and nobody who means it
        ("""sh -c 'python3 -I -S -c "import os; os.system(\\"id -u\\")"'""", True),
    ],
)
def test_what_the_line_allows(operators: Host, command: str, is_allowed: bool) -> None:
    done = operators.ssh(f"runuser -l op -c {json.dumps('sudo -n ' + command)}", check=False)
    assert (done.returncode == 0) == is_allowed, done.stdout + done.stderr

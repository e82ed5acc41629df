"""The one host of these tests, and means to look at it and break it by hand.

They look at the host by other means than facts/ does: files over ssh or in its root, pm2's own list, psql, curl.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.rehearsal.host import Host, of_this_run
from tests.rehearsal.story import INVENTORY, ROOT, Deployed, deploy

APP = "/opt/ai-admin"
STATE = "/var/lib/ai-admin-deploy"
BACKUPS = "/var/backups/ai-admin-deploy"
# Where it is not the API's stability that is tested. The default of 30 s may be too short for a start on a busy machine
QUICK = ("--data", "settle_time=0", "--data", "start_timeout=300")
RUNBOOK = (ROOT / "deploy.py").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def conv() -> Iterator[Host]:
    host = of_this_run("conv")
    yield host
    host.down()


@pytest.fixture(scope="module")
def host(conv: Host) -> Host:
    """Pristine at the start of each file; what a test changes, it or the next deploy repairs."""
    conv.reset()
    return conv


# --- deploy.py, whole or in part


def _name(statement: ast.stmt) -> str | None:
    """Of an operation's call, its `name=`."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    keywords = call.keywords if isinstance(call, ast.Call) else []
    return next((ast.literal_eval(word.value) for word in keywords if word.arg == "name"), None)


STEPS = [name for each in ast.parse(RUNBOOK).body if (name := _name(each))]


def _runbook(keep: Callable[[str], bool]) -> str:
    """deploy.py with those operations alone that are to be kept."""
    tree = ast.parse(RUNBOOK)
    tree.body = [each for each in tree.body if (name := _name(each)) is None or keep(name)]
    return ast.unparse(tree)


def without(name: str) -> str:
    """deploy.py without the operation of this name."""
    assert name in STEPS, f"deploy.py has no operation {name!r}"
    return _runbook(lambda each: each != name)


def only(*names: str) -> str:
    """deploy.py with the operations of these names alone."""
    assert set(names) <= set(STEPS), f"deploy.py has not all of {names}"
    return _runbook(lambda each: each in names)


def converge(
    host: Host,
    *arguments: str,
    environment: dict[str, str] | None = None,
    dotenv: str | None = None,
    runbook: str | None = None,
) -> Deployed:
    """A run that succeeds, and after which the same run changes nothing."""
    done = deploy(host, *QUICK, *arguments, environment=environment, dotenv=dotenv, runbook=runbook)
    assert done.code == 0, done.output
    again = deploy(host, *QUICK, *arguments, environment=environment, dotenv=dotenv, runbook=runbook)
    assert (again.code, again.changed) == (0, []), again.output
    return done


def refuse(
    host: Host,
    *arguments: str,
    environment: dict[str, str] | None = None,
    dotenv: str | None = None,
    runbook: str | None = None,
) -> str:
    """A run that fails; returns what it said, without pyinfra's own lines."""
    done = deploy(host, *QUICK, *arguments, environment=environment, dotenv=dotenv, runbook=runbook)
    assert done.code != 0, done.output
    assert "Traceback" not in done.output, done.output
    return done.output


# --- verification


@dataclass(frozen=True)
class Verified:
    """What bin/verify printed: its exit code, the number of checks, each component's status; and which tests it ran."""

    code: int
    checks: int
    rows: dict[str, str]
    ran: list[str]
    output: str


def verify(host: Host, inventory: str = INVENTORY, **environment: str) -> Verified:
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [sys.executable, "-m", "tests.verify", inventory, "--limit", host.name, "--junit", report.name]
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
        ran = re.findall(r'<testcase [^>]* name="(test_\w+)', Path(report.name).read_text(encoding="utf-8"))
    rows = re.findall(r"^  \S (.{20}) (ready|pending|failing|not checked)", done.stdout, re.MULTILINE)
    checks = re.search(rf"^{host.name}: (\d+) checks$", done.stdout, re.MULTILINE)
    assert checks, done.stdout + done.stderr
    return Verified(done.returncode, int(checks[1]), {name.strip(): status for name, status in rows}, ran, done.stdout)


# --- files


def read(host: Host, path: str) -> bytes:
    return subprocess.run([*host.ssh_command(), f"cat '{path}'"], capture_output=True, check=True).stdout


def write(host: Host, path: str, content: bytes | str) -> None:
    """As an editor would: in place, owner and mode as they are."""
    data = content.encode() if isinstance(content, str) else content
    subprocess.run([*host.ssh_command(), f"cat > '{path}'"], input=data, check=True)


def replace(host: Host, path: str, old: str, new: str) -> None:
    text = read(host, path).decode()
    assert old in text, f"{path} has no {old!r}"
    write(host, path, text.replace(old, new))


def tree(host: Host, *folders: str) -> dict[str, str]:
    """Every file, folder and link below the folders: type, mode, owner, and the content's SHA-256 or the target.

    Read in the host's root on this machine, never through a link: an absolute one would lead to this machine's files.
    """
    found = {}
    for folder in folders:
        for parent, below, files in os.walk(host.root / folder.lstrip("/")):
            for name in [*below, *files]:
                path = os.path.join(parent, name)  # noqa: PTH118 (thousands of them: pathlib takes three times as long)
                found[path.removeprefix(str(host.root))] = _describe(path)
    return found


def _describe(path: str) -> str:
    info = os.lstat(path)
    if stat.S_ISLNK(info.st_mode):
        return f"link to {os.readlink(path)}"  # noqa: PTH115
    content = ""
    if stat.S_ISREG(info.st_mode):
        with open(path, "rb") as file:  # noqa: PTH123
            content = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{stat.filemode(info.st_mode)} {info.st_uid}:{info.st_gid} {content}"


def owned(host: Host) -> dict[str, str]:
    """All that a deploy could change in files. Not the logs of the running app, which it writes itself."""
    whole = tree(host, "/etc", APP, STATE, BACKUPS)
    return {path: what for path, what in whole.items() if not path.startswith(f"{APP}/logs/")}


def differing(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


# --- what runs


@dataclass(frozen=True)
class App:
    pid: int
    status: str
    restarts: int


def apps(host: Host) -> dict[str, App]:
    """pm2's own list. Its environments stay in here."""
    text = host.ssh("pm2 jlist").stdout
    return {
        each["name"]: App(each.get("pid", 0), each["pm2_env"]["status"], each["pm2_env"]["restart_time"])
        for each in json.loads(text[text.index("[") :])
    }


def health_check(host: Host) -> dict[str, bool]:
    """Which secrets the running API has."""
    body = host.ssh("curl -sf http://127.0.0.1:3000/marketplace/health-check").stdout
    environment: dict[str, bool] = json.loads(body)["environment"]
    return environment


def through_nginx(host: Host, path: str, address: str = "127.0.0.1") -> str:
    """The body that the site answers with, through TLS."""
    return host.ssh(
        f"curl -sk --max-time 60 --resolve 'ai-admin.app:443:{address}' 'https://ai-admin.app{path}'", check=False
    ).stdout


HANDSHAKE = "/socket.io/?EIO=4&transport=polling"
ENGINE = '0{"sid":'


def sql(host: Host, statement: str, database: str = "postgres") -> str:
    return host.ssh(
        f"cd / && runuser -u postgres -- psql -XAtq -v ON_ERROR_STOP=1 -d {database}", input=statement
    ).stdout.strip()


@pytest.fixture(scope="module")
def leak_host() -> Iterator[Host]:
    """A host of its own, pristine: for the tests that plant secrets, or kill runs in their middle."""
    host = of_this_run("leak")
    host.reset()
    yield host
    host.down()

"""A host that faults strike: what it was, what may never be otherwise, and how it heals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from remote import lock
from tests.rehearsal.host import Host, until
from tests.rehearsal.story import INVENTORY, ROOT, Deployed, copy_of_repository, deploy, without_secrets

KEYS = re.compile(rb"^(YCLIENTS_PARTNER_TOKEN|YCLIENTS_APP_ID|JWT_SECRET)=.*\n?", re.MULTILINE)
QUIET = 180  # seconds for the host to finish what it began
PATIENCE = 120  # seconds for a site that comes back
LONGEST = 300  # seconds after which a run hangs
FAST = ("--data", "settle_time=1", "--data", "lock_timeout=1")

# One answer per line: what the site says, and what the database holds.
ASK = r"""
through() { curl -sk --max-time 5 --resolve ai-admin.app:443:127.0.0.1 "https://ai-admin.app$1"; }
echo "landing $(through / | grep -q 'AI Admin' && echo 1)"
echo "page $(through '/marketplace/onboarding?token=x' | grep -q WhatsApp && echo 1)"
echo "socket $(through '/socket.io/?EIO=4&transport=polling' | head -c 2 | tr -d '\n')"
echo "nginx $(nginx -t 2>&1 | grep -c successful)"
sql() { (cd /; runuser -u postgres -- psql -XAtc "$1" 2>/dev/null); }
echo "columns $(sql "select count(*) from information_schema.columns where table_name = 'companies'")"
echo "ledger $(sql 'select count(*) from ai_admin_deploy.migrations')"
echo "left $(find /opt/ai-admin /etc/nginx -name '*ai-admin-deploy*' -not -path '*/node_modules/*' | tr '\n' ' ')"
"""


@dataclass(frozen=True)
class Moment:
    """A run that stands still at its `step`. Pids on this machine: of its client, and of what stopped, which may be the
    client; and the sshd sessions that were there before it."""

    step: int
    client: int
    stopped: int
    sessions: set[int]


@dataclass(frozen=True)
class Ran:
    """Exit code (negative: a signal) and all that was printed."""

    code: int
    output: str


class World:
    def __init__(self, host: Host, root: Path = ROOT) -> None:
        self.host = host
        self.root = root  # the bundle that is tried; a mutant of it in the tests of this harness
        self.env = self.env_now()

    def env_now(self) -> bytes:
        """As the host's own processes see it, whatever is mounted over it."""
        return Path(f"/proc/{self.host.init}/root/opt/ai-admin/.env").read_bytes()

    def faulty(
        self,
        kind: str,
        step: int,
        environment: dict[str, str],
        *arguments: str,
        runbook: str = "deploy.py",
        meanwhile: Callable[[Moment], object] | None = None,
    ) -> Ran:
        """A run with one fault in its client or connection, or with something that happens while it stands still."""
        command = [sys.executable, "-m", "tests.resilience.client", kind, str(step), INVENTORY, "deploy.py"]
        text = (self.root / runbook).read_text(encoding="utf-8")
        sessions = sshd_sessions(self.host)
        with copy_of_repository(self.root, None, text) as folder, TemporaryFile("w+") as output:
            client = subprocess.Popen(
                [*command, "--limit", self.host.name, "-y", *FAST, *arguments],
                cwd=folder,
                env={**without_secrets(), **environment},
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
            deadline = time.monotonic() + LONGEST
            while client.poll() is None:
                if time.monotonic() > deadline:
                    raise TimeoutError(self._end(client))
                if meanwhile and (stopped := self._stopped(client.pid)):
                    began = time.monotonic()
                    try:
                        meanwhile(Moment(step, client.pid, stopped, sessions))
                    finally:
                        meanwhile = None
                        deadline += time.monotonic() - began
                        with suppress(ProcessLookupError):
                            os.kill(stopped, signal.SIGCONT)
                time.sleep(0.05)
            until(QUIET, "the host to finish what it began", lambda: not self.busy())
            output.seek(0)
            return Ran(client.returncode, output.read())

    def _end(self, client: subprocess.Popen[bytes]) -> str:
        """Of a run that hangs: kill its client and wake what has stopped. Returns the states that they were in."""
        states = {pid: _state(pid) for pid in (client.pid, *self._programs())}
        client.kill()
        for pid, state in states.items():
            if state == "T":
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        return f"a run that has not ended after {LONGEST} s: its client and its programs on the host are {states}"

    def _stopped(self, client: int) -> int | None:
        """The client, or a program of ours on the host, that has stopped itself."""
        return next((pid for pid in (client, *self._programs()) if _state(pid) == "T"), None)

    def busy(self) -> bool:
        """Does a program of ours still run on the host?"""
        return bool(self._programs())

    def at_work(self) -> bool:
        """Does one of them hold, or wait for, one of our locks?"""
        return any(each.startswith(f"{lock.FOLDER}/") for pid in self._programs() for each in _open_files(pid))

    def session(self) -> set[int]:
        """What holds the deploy's lock; a step only tries it."""
        return {pid for pid in self._programs() if f"{lock.FOLDER}/{lock.DEPLOY}" in _open_files(pid)}

    def _programs(self) -> list[int]:
        return [pid for pid in self.host.processes() if b"# ai-admin-deploy" in _of_process(pid, "cmdline")]

    def deploy(self, environment: dict[str, str], *arguments: str) -> Deployed:
        return deploy(self.host, *FAST, *arguments, environment=environment, root=self.root)

    def problems(self, *unasked: str) -> list[str]:
        """Which of the invariants do not hold, but for `unasked`: of "nginx", "database" and "left"."""
        answers = self.ask_patiently()
        wrong = _of_site(answers)
        if answers.get("nginx") != "1" and "nginx" not in unasked:
            wrong.append("nginx -t does not pass")
        columns, ledger = answers.get("columns"), answers.get("ledger") or "0"
        if (columns, ledger) not in (("21", "0"), ("34", "1")) and "database" not in unasked:
            wrong.append(f"the database is in between: {columns} columns, {ledger} in the ledger")
        if answers.get("left", "").strip() and "left" not in unasked:
            wrong.append(f"left behind: {answers['left']}")
        return [*wrong, *self.of_dotenv()]

    def ask(self) -> dict[str, str]:
        lines = self.host.ssh("sh", input=ASK, check=False).stdout.splitlines()
        return dict(line.partition(" ")[::2] for line in lines)

    def ask_patiently(self) -> dict[str, str]:
        """The site may need a moment after a restart, or on a busy machine; nothing else may."""
        deadline = time.monotonic() + PATIENCE
        while _of_site(answers := self.ask()) and time.monotonic() < deadline:
            time.sleep(0.3)
        return answers

    def of_dotenv(self) -> list[str]:
        found, env = [], self.env_now()
        if KEYS.sub(b"", env).rstrip(b"\n") != KEYS.sub(b"", self.env).rstrip(b"\n"):
            found.append(".env lost something of others")
        if len(KEYS.findall(env)) not in (len(KEYS.findall(self.env)), 1, 3):
            found.append(f".env is in between: {len(KEYS.findall(env))} of our keys")
        return found

    def heal(self, environment: dict[str, str]) -> list[str]:
        """One more deploy must converge, and the next must find nothing to do. Returns what is wrong with that."""
        again = self.deploy(environment)
        if again.code != 0:
            return [f"the next deploy fails: {again.output[-600:]}"]
        last = self.deploy(environment)
        if last.code != 0 or last.changed:
            return [f"the deploy after that still changes {last.changed}: {last.output[-300:]}"]
        return [*self.problems(), *self.unfinished(environment)]

    def unfinished(self, environment: dict[str, str]) -> list[str]:
        """Converged means that the running API has it all, not only the files."""
        answer = self.host.ssh("curl -s --max-time 60 localhost:3000/marketplace/health-check", check=False).stdout
        wanted = {"jwt_secret": True, "partner_token": bool(environment), "app_id": bool(environment)}
        return [
            f"the running API says {answer[:120]}, not {name} {value}"
            for name, value in wanted.items()
            if f'"{name}":{str(value).lower()}' not in answer
        ]


def _of_site(answers: dict[str, str]) -> list[str]:
    found = []
    if answers.get("landing") != "1" or answers.get("page") != "1":
        found.append(f"the site does not answer through TLS: {answers}")
    if answers.get("socket") not in ("0{", "<!"):
        found.append(f"/socket.io/ answers neither as before nor as after: {answers.get('socket')}")
    return found


def sshd_sessions(host: Host) -> set[int]:
    return {pid for pid in host.processes() if _of_process(pid, "cmdline").startswith(b"sshd-session")}


def _open_files(pid: int) -> list[str]:
    with suppress(OSError):  # it has ended
        return [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]
    return []


def _of_process(pid: int, file: str) -> bytes:
    """What /proc says; nothing of a process that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{file}").read_bytes()
    return b""


def _state(pid: int) -> str:
    return _of_process(pid, "stat").rpartition(b")")[2].decode()[1:2]

"""A host that faults strike: what it was, what may never be otherwise, and how it heals."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from tests.rehearsal.host import Host, until
from tests.rehearsal.story import INVENTORY, ROOT, Deployed, deploy, without_secrets

KEYS = re.compile(rb"^(YCLIENTS_PARTNER_TOKEN|YCLIENTS_APP_ID|JWT_SECRET)=.*\n?", re.MULTILINE)
QUIET = 60  # seconds for the host to finish what it began
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


class World:
    def __init__(self, host: Host, root: Path = ROOT) -> None:
        self.host = host
        self.root = root  # the bundle that is tried; a mutant of it in the tests of this harness
        self.env = self.env_now()

    def env_now(self) -> bytes:
        """As the host's own processes see it, whatever is mounted over it."""
        return Path(f"/proc/{self.host.init}/root/opt/ai-admin/.env").read_bytes()

    def faulty(self, kind: str, step: int, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """A deploy with one fault in its client or connection. It is not expected to succeed."""
        command = [sys.executable, "-m", "tests.resilience.client", kind, str(step), INVENTORY, "deploy.py"]
        done = subprocess.run(
            [*command, "--limit", self.host.name, "-y", *FAST],
            cwd=self.root,
            env={**without_secrets(), **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        until(QUIET, "the host to finish what it began", lambda: not self.busy())
        return done

    def busy(self) -> bool:
        """Does a program of ours still run on the host?"""
        for pid in self.host.processes():
            try:
                if b"# ai-admin-deploy" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return True
            except OSError:
                continue
        return False

    def deploy(self, environment: dict[str, str], *arguments: str) -> Deployed:
        return deploy(self.host, *FAST, *arguments, environment=environment, root=self.root)

    def problems(self) -> list[str]:
        """Which of the invariants do not hold. The site may need a moment after a restart; nothing else may."""
        deadline = time.monotonic() + 20
        while True:
            found = self._problems()
            if not found or time.monotonic() > deadline:
                return found
            time.sleep(0.3)

    def _problems(self) -> list[str]:
        answers = dict(
            line.partition(" ")[::2] for line in self.host.ssh("sh", input=ASK, check=False).stdout.splitlines()
        )
        found = []
        if answers.get("landing") != "1" or answers.get("page") != "1":
            found.append(f"the site does not answer through TLS: {answers}")
        if answers.get("socket") not in ("0{", "<!"):
            found.append(f"/socket.io/ answers neither as before nor as after: {answers.get('socket')}")
        if answers.get("nginx") != "1":
            found.append("nginx -t does not pass")
        if (answers.get("columns"), answers.get("ledger") or "0") not in (("21", "0"), ("34", "1")):
            found.append(
                f"the database is in between: {answers.get('columns')} columns, {answers.get('ledger')} in the ledger"
            )
        if answers.get("left", "").strip():
            found.append(f"left behind: {answers['left']}")
        env = self.env_now()
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
        return [*self.problems(), *self._unfinished(environment)]

    def _unfinished(self, environment: dict[str, str]) -> list[str]:
        """Converged means that the running API has it all, not only the files."""
        answer = self.host.ssh("curl -s --max-time 5 localhost:3000/marketplace/health-check", check=False).stdout
        wanted = {"jwt_secret": True, "partner_token": bool(environment), "app_id": bool(environment)}
        return [
            f"the running API says {answer[:120]}, not {name} {value}"
            for name, value in wanted.items()
            if f'"{name}":{str(value).lower()}' not in answer
        ]

"""bin/verify --drift: what would deploy change? Asks pyinfra for its plan, and changes nothing. For cron and CI.

pyinfra 3.10 exits 0 after --dry whether or not there is something to change; its plan is JSON on standard output, and
what each operation says of its host stands on standard error, as `[host]   line`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.verify.target import ROOT, Target

SAME, FAILED, DIFFERS = 0, 1, 3


def find(inventory: Path, hosts: list[Target]) -> int:
    """Print each difference; the exit code."""
    names = [host.name for host in hosts]
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    limits = [word for name in names for word in ("--limit", name)]
    done = subprocess.run(
        [pyinfra, str(inventory.resolve()), str(ROOT / "deploy.py"), *limits, "--dry", "--json"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode or not done.stdout.strip():
        print(f"{done.stderr.rstrip()}\nverify: deploy's plan could not be made; see above", file=sys.stderr)
        return FAILED
    plan = json.loads(done.stdout)["plan"]
    for name in names:
        changes = [each["name"] for each in plan if name in each["hosts_with_change"]]
        print(f"{name}: {'differs in ' + ', '.join(changes) if changes else 'is as deploy would make it'}")
        for line in said_of(name, done.stderr):
            print(f"  {line}")
    return DIFFERS if any(each["hosts_with_change"] for each in plan) else SAME


def said_of(host: str, output: str) -> list[str]:
    """The lines that say what changes, and what is pending: they stand deeper than pyinfra's own."""
    lines = [line.partition(f"[{host}]")[2] for line in output.splitlines() if f"[{host}]" in line]
    depth = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return [line.strip() for line in lines if line.startswith(" " * (depth + 1))]

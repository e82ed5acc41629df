"""bin/verify --drift: what would deploy change? Runs pyinfra with --dry, and changes nothing. For cron and CI.

pyinfra 3.10 exits 0 after --dry whether or not there is something to change. It prints the plan to standard output as
JSON, and what each operation logs to standard error, as `[host]   line`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.verify.target import ROOT, Target

SAME, FAILED, DIFFERS = 0, 1, 3


def _planned(inventory: str, names: list[str], data: Sequence[str]) -> subprocess.CompletedProcess[str]:
    pyinfra = str(Path(sys.executable).with_name("pyinfra"))
    limits = [option for name in names for option in ("--limit", name)]
    limits += [option for each in data for option in ("--data", each)]
    return subprocess.run(
        [pyinfra, inventory, str(ROOT / "deploy.py"), *limits, "--dry", "--json"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )


def unchanged(inventory: str, names: list[str], data: Sequence[str] = ()) -> set[str]:
    """The hosts on which deploy would change nothing; none where no plan can be made."""
    done = _planned(inventory, names, data)
    if done.returncode or not done.stdout.strip():
        return set()
    return {*names} - {name for each in _plan(done.stdout) for name in each["hosts_with_change"]}


def _plan(printed: str) -> list[dict[str, Any]]:
    """pyinfra's JSON is the last line: an inventory may print too."""
    found: list[dict[str, Any]] = json.loads(printed.splitlines()[-1])["plan"]
    return found


def find(inventory: str, hosts: list[Target], data: Sequence[str] = ()) -> int:
    """Print each difference, and return the exit code."""
    names = [host.name for host in hosts]
    done = _planned(inventory, names, data)
    if done.returncode or not done.stdout.strip():
        print(f"{done.stderr.rstrip()}\nverify: pyinfra could not plan the deploy; see above", file=sys.stderr)
        return FAILED
    plan = _plan(done.stdout)
    for name in names:
        changes = [each["name"] for each in plan if name in each["hosts_with_change"]]
        print(f"{name}: {'differs in ' + ', '.join(changes) if changes else 'is as deploy would make it'}")
        for line in logged_for(name, done.stderr):
            print(f"  {line}")
    return DIFFERS if any(each["hosts_with_change"] for each in plan) else SAME


def logged_for(host: str, output: str) -> list[str]:
    """The lines that name what changes and what is pending: they are indented deeper than pyinfra's own."""
    lines = [line.partition(f"[{host}]")[2] for line in output.splitlines() if f"[{host}]" in line]
    depth = min((len(line) - len(line.lstrip()) for line in lines), default=0)
    return [line.strip() for line in lines if line.startswith(" " * (depth + 1))]

"""The host for these tests: deployed once, with tokens. Each test leaves it as it was."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.rehearsal.host import FIREWALL, Host, of_this_run
from tests.rehearsal.story import INVENTORY, ROOT, deploy, tokens

FUNCTIONS = Path(__file__).with_name("host.sh").read_text(encoding="utf-8")
ALTERED = """
from tests.rehearsal.inventory import rehearsal
for _, data in rehearsal:
    data.update({data})
"""


@dataclass(frozen=True)
class Verified:
    """One run of bin/verify: its exit code, its output, and the host's table from --json."""

    code: int
    output: str
    table: dict[str, Any]

    def checks(self, *statuses: str) -> dict[str, str]:
        """name -> row, for the checks with one of these statuses, or for all."""
        return {
            check["name"]: row["component"]
            for row in self.table["rows"]
            for check in row["checks"]
            if not statuses or check["status"] in statuses
        }


def altered(folder: Path, **data: object) -> str:
    """The rehearsal's inventory, with this data for its hosts."""
    file = folder / "inventory.py"
    file.write_text(ALTERED.format(data=data))
    return str(file)


def verify(host: Host, folder: Path, *arguments: str, inventory: str = INVENTORY) -> Verified:
    file = folder / "verify.json"
    command = [sys.executable, "-m", "tests.verify", inventory, "--limit", host.name, "--json", str(file), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert file.exists(), done.stderr
    return Verified(done.returncode, done.stdout, json.loads(file.read_text(encoding="utf-8"))[0])


def drift(host: Host, inventory: str = INVENTORY) -> tuple[int, str]:
    command = [sys.executable, "-m", "tests.verify", inventory, "--limit", host.name, "--drift"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("YCLIENTS_", "JWT_", "DATABASE_"))}
    done = subprocess.run(command, cwd=ROOT, env=clean, capture_output=True, text=True)
    return done.returncode, done.stdout


def shell(host: Host, script: str, where: str) -> None:
    """Run a fault's shell script: on the host with the functions of host.sh, or on this machine."""
    if where == "here":
        known = {"table": host.table, "firewall": FIREWALL, "address": host.address, "interface": host.interface}
        known |= {
            "six": host.six,
            "ssh": " ".join(host.ssh_command()),
            "functions": FUNCTIONS,  # for `$ssh "$functions ..."`
            "site": "/etc/nginx/sites-available/ai-admin.app",
        }
        subprocess.run(["sh", "-euc", script], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **known}, check=True)
    else:
        host.ssh("bash", "-s", input=f"{FUNCTIONS}\n{script}\n")


@pytest.fixture(scope="session")
def ver() -> Iterator[Host]:
    host = of_this_run("ver")
    host.reset()
    done = deploy(host, environment=tokens())
    assert done.code == 0, done.output
    yield host
    host.down()


@pytest.fixture(scope="session")
def sound(ver: Host, tmp_path_factory: pytest.TempPathFactory) -> Verified:
    """bin/verify of the host without a fault."""
    return verify(ver, tmp_path_factory.mktemp("sound"))

"""The host of these tests: deployed once, with tokens; each test leaves it as it was."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.rehearsal.host import FIREWALL, Host
from tests.rehearsal.story import INVENTORY, ROOT, deploy, tokens

WORDS = Path(__file__).with_name("host.sh").read_text(encoding="utf-8")
ALTERED = """
from tests.rehearsal.inventory import rehearsal
for _, data in rehearsal:
    data.update({data})
"""


@dataclass(frozen=True)
class Verified:
    """One run of bin/verify: exit code, what it printed, and --json's table of the one host."""

    code: int
    output: str
    table: dict[str, Any]

    def checks(self, *statuses: str) -> dict[str, str]:
        """name -> its row, of the checks of these statuses (all, without one)."""
        return {
            check["name"]: row["component"]
            for row in self.table["rows"]
            for check in row["checks"]
            if not statuses or check["status"] in statuses
        }


def altered(folder: Path, **data: str) -> str:
    """An inventory like the rehearsal's, with these knobs."""
    file = folder / "inventory.py"
    file.write_text(ALTERED.format(data=data))
    return str(file)


def verify(host: Host, folder: Path, *arguments: str, inventory: str = INVENTORY) -> Verified:
    file = folder / "verify.json"
    command = [sys.executable, "-m", "tests.verify", inventory, "--limit", host.name, "--json", str(file), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert file.exists(), done.stderr
    return Verified(done.returncode, done.stdout, json.loads(file.read_text(encoding="utf-8"))[0])


def shell(host: Host, script: str, where: str) -> None:
    """Run a fault's shell, on the host with the words of host.sh, or on this machine."""
    if where == "here":
        known = {"table": host.table, "firewall": FIREWALL, "address": host.address}
        subprocess.run(["sh", "-euc", script], env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **known}, check=True)
    else:
        host.ssh("bash", "-s", input=f"{WORDS}\n{script}\n")


@pytest.fixture(scope="session")
def ver() -> Iterator[Host]:
    host = Host("ver")
    host.reset()
    done = deploy(host, environment=tokens())
    assert done.code == 0, done.output
    yield host
    host.down()


@pytest.fixture(scope="session")
def sound(ver: Host, tmp_path_factory: pytest.TempPathFactory) -> Verified:
    """Verification of the host without a fault."""
    return verify(ver, tmp_path_factory.mktemp("sound"))

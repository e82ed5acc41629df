"""One Node process for all tests, with the real dotenv and semver: those of the rehearsal host's own image."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.rehearsal import image

ROOT = Path(__file__).parent.parent.parent

# The same cases on every machine and run, and no folder of examples left behind
settings.register_profile(
    "unit", derandomize=True, database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("unit")


class Node:
    """Asks node.js by its functions' names."""

    def __init__(self, modules: Path, debian: Path) -> None:
        self.modules = modules
        driver = Path(__file__).with_name("node.js")
        command = ["node", str(driver), str(modules / "dotenv"), str(debian / "semver")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")

    def ask(self, name: str, *values: Any) -> Any:
        assert self.process.stdin and self.process.stdout
        print(json.dumps([name, *values]), file=self.process.stdin, flush=True)
        answer = self.process.stdout.readline()
        assert answer, f"node.js ended at {name}; what it said is above"
        return json.loads(answer)

    def parse(self, content: bytes) -> dict[str, str]:
        """What dotenv 17 reads."""
        found: dict[str, str] = self.ask("parse", base64.b64encode(content).decode())
        return found


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    application, debian = image.layers()
    node = Node(application / "opt/ai-admin/node_modules", debian / "usr/share/nodejs")
    yield node
    assert node.process.stdin
    node.process.stdin.close()
    node.process.wait(60)

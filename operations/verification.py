"""Verification at the end of the run, on request: the same as bin/verify."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import host

from facts.look import Wanted

ROOT = Path(__file__).parent.parent
PENDING = 2  # bin/verify's exit code when only tokens are missing: not an error


def _verify(state: State, host: Host) -> bool:
    """In a process of its own: it shares nothing with what deployed. pyinfra keeps no note of its inventory's file."""
    del state  # pyinfra passes it, and the host, only to a function that names both
    inventory = next((word for word in sys.argv[1:] if word.endswith(".py")), "inventory.py")
    done = subprocess.run(
        [sys.executable, "-m", "tests.verify", str(Path(inventory).resolve()), "--limit", host.name], cwd=ROOT
    )
    return done.returncode in (0, PENDING)


@operation()
def passes(wanted: Wanted) -> Generator[FunctionCommand]:
    if not wanted.settings.verify:
        host.noop("verify: not asked for (--data verify=true)")
        return
    host.log("  verify: the ten components")
    yield FunctionCommand(_verify, (), {})

"""Verification at the end of the run, on request: the same as bin/verify."""

import subprocess
import sys
from collections.abc import Generator
from pathlib import Path

from pyinfra.api.command import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.api.state import State
from pyinfra.context import host
from pyinfra_cli.cli import cli

ROOT = Path(__file__).parent.parent
PENDING = 2  # bin/verify's exit code when only tokens are missing: not an error


def _verify(state: State, host: Host) -> bool:
    """In a process of its own: it shares nothing with what deployed."""
    del state  # pyinfra passes it, and the host, only to a function that names both
    # pyinfra keeps no note of its inventory: its own command line is read once more
    inventory = cli.make_context("pyinfra", sys.argv[1:], resilient_parsing=True).params["inventory"]
    inventory = str(Path(inventory).resolve()) if Path(inventory).exists() else inventory  # `@local` is not a path
    done = subprocess.run([sys.executable, "-m", "tests.verify", inventory, "--limit", host.name], cwd=ROOT)
    return done.returncode in (0, PENDING)


@operation()
def passes(wanted: bool) -> Generator[FunctionCommand]:
    if not wanted:
        host.noop("verify: not asked for (--data verify=true)")
        return
    host.log("  verify: the ten components")
    yield FunctionCommand(_verify, (), {})

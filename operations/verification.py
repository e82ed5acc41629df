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

import terminal

ROOT = Path(__file__).parent.parent
PENDING = 2  # bin/verify's exit code when only tokens are missing: not an error


def _verify(state: State, host: Host) -> bool:
    """In a process of its own: it shares nothing with what deployed."""
    del state  # pyinfra passes it, and the host, only to a function that names both
    source = terminal.inventory()
    source = str(Path(source).resolve()) if Path(source).exists() else source  # `@local` is not a path
    words = [word for each in terminal.parameters()["data"] for word in ("--data", each)]
    done = subprocess.run([sys.executable, "-m", "tests.verify", source, "--limit", host.name, *words], cwd=ROOT)
    return done.returncode in (0, PENDING)


def passes(name: str, wanted: bool) -> None:
    """Without `wanted` there is no such operation: as one without a change it would read as verified."""
    if wanted:
        _passes(name=name)


@operation()
def _passes() -> Generator[FunctionCommand]:
    host.log("  verify: the ten components")
    yield FunctionCommand(_verify, (), {})

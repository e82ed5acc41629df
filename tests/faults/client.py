"""pyinfra with one fault: `client.py KIND STEP ARGUMENT…`. STEP counts the remote steps from 1; KIND is what befalls.

before  the client is killed before it sends the step
after   the client is killed when the step is done, before anything else
cut     the connection is cut while the step runs
sshd    the host's sshd session is killed while the step runs
count   nothing; the last line of standard error says how many steps there were
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from pyinfra.connectors.ssh import SSHConnector
from pyinfra_cli.main import main

import session
from tests.rehearsal.host import Host

KIND, STEP = sys.argv[1], int(sys.argv[2])
MIDDLE = (0.02, 0.6)  # seconds after its start: where the middle of a step is looked for
steps = 0


def _cut(connector: SSHConnector) -> None:
    transport = connector.client.get_transport() if connector.client else None
    if transport is not None:
        transport.sock.shutdown(socket.SHUT_RDWR)


def _kill_sshd(connector: SSHConnector) -> None:
    """The sessions of the host that belong to no connection of the tests' own (those stay open over many runs)."""
    for pid in Host(connector.host.name).processes():
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if command.startswith(b"sshd-session") and pid not in before:
            os.kill(pid, signal.SIGKILL)


def _with_fault(real: Callable[..., Any], connector_of: Callable[..., SSHConnector]) -> Callable[..., Any]:
    def run(*arguments: Any, **options: Any) -> Any:
        global steps  # noqa: PLW0603 -- the one count of this process
        steps += 1
        if steps != STEP or KIND == "count":
            return real(*arguments, **options)
        if KIND == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        if KIND in ("cut", "sshd"):
            strike = {"cut": _cut, "sshd": _kill_sshd}[KIND]
            gevent.spawn_later(random.uniform(*MIDDLE), strike, connector_of(*arguments))  # noqa: S311 -- a delay
        result = real(*arguments, **options)
        if KIND == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return run


def sshd_sessions(name: str) -> set[int]:
    return {
        pid
        for pid in Host(name).processes()
        if Path(f"/proc/{pid}/cmdline").exists()
        and Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sshd-session")
    }


before = sshd_sessions(sys.argv[sys.argv.index("--limit") + 1])
SSHConnector.run_shell_command = _with_fault(SSHConnector.run_shell_command, lambda connector, *_: connector)  # type: ignore[method-assign]
session.start = _with_fault(session.start, lambda host, *_: host.connector)
sys.argv = ["pyinfra", *sys.argv[3:]]
try:
    main()
finally:
    print(f"steps: {steps}", file=sys.stderr)

"""pyinfra with one fault: `client.py KIND STEP ARGUMENT…`. STEP counts the remote steps from 1; KIND is the fault.

before  the client is killed before it sends the step
after   the client is killed when the step is done, before anything else
cut     the connection is cut when half of the step's input is sent
sshd    the host's sshd session is killed when all of it is sent, so while the step runs
pauseN  the step's program on the host stops itself (SIGSTOP) before the Nth of its calls that change a file or start a
        program, and goes on when it is told to; with 0 this client does, before it sends the step
editN   as pauseN, but no rename counts: between our last look at a file and its rename there are microseconds
count   nothing; the last line of standard error says how many steps there were
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paramiko import SSHClient
from pyinfra.connectors.ssh import SSHConnector
from pyinfra_cli.main import main

import channel
from channel import Session
from remote import wire
from tests.rehearsal.host import Host
from tests.resilience.world import sshd_sessions

KIND, STEP = sys.argv[1], int(sys.argv[2])
NUMBER = KIND.removeprefix("pause").removeprefix("edit") if KIND.startswith(("pause", "edit")) else ""
# Added to the modules that are sent. Python raises these events before it does what they name (3.10: Audit events).
PAUSE = """
import os, signal, sys
left, own, edit = NUMBER, os.getpid(), EDIT
def _pause(event, arguments):
    global left
    if os.getpid() != own:  # the waiting room, a child that nobody would wake
        return
    opens = event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR)
    changes = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.truncate", "subprocess.Popen")
    if opens or (event in changes and not (edit and event == "os.rename")):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
sys.addaudithook(_pause)
"""
steps = 0


def _cut(connector: SSHConnector) -> None:
    transport = connector.client.get_transport() if connector.client else None
    if transport is not None:
        transport.sock.shutdown(socket.SHUT_RDWR)


def _kill_sshd(connector: SSHConnector) -> None:
    """The sessions of the host that belong to no connection of the tests' own (those stay open over many runs)."""
    del connector
    for pid in sshd_sessions(host) - before:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


class Struck:
    """Standard input of a program on the host. If what is written is the step's, the strike comes: `cut` in the middle,
    `sshd` when all is sent. The program may have been started before (`channel._Ahead`), or be a session, which gets a
    line for each look, and line feeds as signs of life.
    """

    def __init__(self, stdin: Any, connector: SSHConnector) -> None:
        self.stdin, self.connector, self.channel = stdin, connector, getattr(stdin, "channel", None)
        self.is_struck = False

    def write(self, data: bytes) -> None:
        self.is_struck = steps == STEP and data.strip() != b""
        if not self.is_struck:
            self.stdin.write(data)
            return
        if NUMBER and b" " in data:  # a look of a session changes nothing
            modules, call = data.split()
            sources = wire.unpack(modules)
            sources["remote"] += PAUSE.replace("NUMBER", NUMBER).replace("EDIT", str(KIND.startswith("edit")))
            data = f"{wire.pack(sources)} {call.decode()}\n".encode()
        half = len(data) // 2
        self.stdin.write(data[:half])
        if KIND == "cut":
            _cut(self.connector)
        self.stdin.write(data[half:])

    def flush(self) -> None:
        self.stdin.flush()
        if self.is_struck and KIND == "sshd":
            _kill_sshd(self.connector)

    def close(self) -> None:
        self.flush()
        self.stdin.close()


def _with_fault(real: Callable[..., Any]) -> Callable[..., Any]:
    """A remote step, struck when it is the one."""

    def run(*arguments: Any, **options: Any) -> Any:
        global steps  # noqa: PLW0603 -- the one count of this process
        steps += 1
        if steps == STEP and KIND in ("before", "pause0"):
            os.kill(os.getpid(), signal.SIGKILL if KIND == "before" else signal.SIGSTOP)
        result = real(*arguments, **options)
        if steps == STEP and KIND == "after":
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    return run


def _struck(begin: Callable[..., tuple[Any, Any, Any]]) -> Callable[..., tuple[Any, Any, Any]]:
    def struck(*arguments: Any, **options: Any) -> tuple[Any, Any, Any]:
        stdin, stdout, stderr = begin(*arguments, **options)
        strikes = KIND not in ("before", "after", "pause0", "count")
        return Struck(stdin, connectors[0]) if strikes else stdin, stdout, stderr

    return struck


def _connect(connector: SSHConnector) -> None:
    connectors.append(connector)
    connect(connector)


channel.MAX_AGE = 600  # on a busy machine one more look would be one more step
host = Host(sys.argv[sys.argv.index("--limit") + 1])
before = sshd_sessions(host)
connectors: list[SSHConnector] = []
connect = SSHConnector.connect
# The strike is put into the real methods, which mypy takes for a mistake: hence what is ignored, line by line.
SSHConnector.connect = _connect  # type: ignore[method-assign, assignment]
SSHClient.exec_command = _struck(SSHClient.exec_command)  # type: ignore[method-assign]
channel.begin = _struck(channel.begin)
SSHConnector.run_shell_command = _with_fault(SSHConnector.run_shell_command)  # type: ignore[method-assign]
Session.ask = _with_fault(Session.ask)  # type: ignore[method-assign]
sys.argv = ["pyinfra", *sys.argv[3:]]
try:
    main()
finally:
    print(f"steps: {steps}", file=sys.stderr)

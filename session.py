"""One deploy at a time per host, from its first look until it disconnects, and a line about each in its audit log.

The lock lives on a channel kept open: whatever ends the connection ends the lock. A run that only plans takes none.
"""

from __future__ import annotations

import getpass
import json
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from paramiko.channel import ChannelFile, ChannelStdinFile
from pyinfra.api.host import Host
from pyinfra.api.output import echo
from pyinfra.api.state import BaseStateCallback, State, StateStage
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import make_unix_command_for_host

import remote
from settings import BadInput

# Names this run: its backups and its line in the audit log. Sorts by time.
DEPLOY = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
CLOSING = 5  # seconds for the host to write the audit log


@dataclass
class Session:
    stdin: ChannelStdinFile
    stdout: ChannelFile
    changed: list[str] = field(default_factory=list)


_sessions: dict[str, Session] = {}  # by the host's name


def is_applying(host: Host) -> bool:
    """Will this run change the host? In the plan of a run that asks first, and of `--dry`, not yet."""
    return host.state.is_executing or not host.state.check_for_changes


def is_open(host: Host) -> bool:
    return host.name in _sessions


def about(lock_wait: int) -> dict[str, Any]:
    """For operations/session.js: what the lock and the audit log say of us."""
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    return {"who": who, "bundle": bundle(), "deploy": DEPLOY, "lock_wait": lock_wait}


def start(host: Host, program: str, timeout: int, sudo: dict[str, Any]) -> tuple[str, str]:
    """Run `program` and keep its channel: the first line of its output, and its errors where there is no such line."""
    connector = host.connector
    if not isinstance(connector, SSHConnector) or connector.client is None:
        raise BadInput(f"{host.name} is not reached by ssh; the inventory must name an ssh host")
    command = make_unix_command_for_host(host.state, host, remote.NODE, **sudo)
    if host.state.print_fact_input:
        echo(f"{host.print_prefix}>>> {command}", err=True)
    stdin, stdout, stderr = connector.client.exec_command(command.get_raw_value(), timeout=timeout)
    stdin.write(program)
    stdin.flush()
    while (line := stdout.readline()) == "\n":
        continue  # the host's sign of life while it waits for a lock
    if host.state.print_fact_output:
        echo(f"{host.print_prefix}{line.rstrip()}", err=True)
    if not line:
        return "", stderr.read().decode(errors="replace")
    _sessions[host.name] = Session(stdin, stdout)
    if not any(isinstance(handler, _AtTheEnd) for handler in host.state.callback_handlers):
        host.state.add_callback_handler(_AtTheEnd())
    return line, ""


def changed(host: Host) -> None:
    """The operation that runs now has changed the host."""
    operation = host.executing_op_hash
    if operation and host.name in _sessions:
        names = host.state.get_op_meta(operation).names - set(_sessions[host.name].changed)
        _sessions[host.name].changed += sorted(names)


class _AtTheEnd(BaseStateCallback):
    @staticmethod
    def host_disconnect(state: State, host: Host) -> None:
        session = _sessions.pop(host.name, None)
        if session is None:
            return
        fine = state.current_stage == StateStage.Disconnect and host not in state.failed_hosts
        result = {"result": "ok" if fine else "failed", "changed": session.changed}
        with suppress(OSError):  # the host's side has ended already: the lock was another's, or the connection is gone
            session.stdin.write(json.dumps(result) + "\n")
            session.stdin.flush()
            session.stdin.channel.shutdown_write()
            session.stdout.channel.status_event.wait(CLOSING)


def bundle() -> str:
    """`git describe` of this bundle, or "unknown" where it is not a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--tags"]
    done = subprocess.run(command, cwd=Path(__file__).resolve().parent, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"

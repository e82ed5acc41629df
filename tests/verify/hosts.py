"""Reads an inventory with pyinfra itself, and prints its hosts as JSON; its one argument is `read`'s as JSON.

So whatever pyinfra 3.10 accepts means the same to `bin/verify` as to `pyinfra INVENTORY deploy.py`: every form of
inventory, group data, config.py, and the global arguments (`_sudo`, `_env`, …) with pyinfra's own precedence. It runs
as a process of its own because importing pyinfra takes 0.4 s, and bin/verify imports pytest meanwhile.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gevent import monkey
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, pop_global_arguments
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.config import Config
from pyinfra.api.hiddenvalue import HiddenValue
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.sshuserclient.client import get_ssh_config
from pyinfra.connectors.util import extract_control_arguments, make_unix_command
from pyinfra.context import ctx_config, ctx_inventory, ctx_state

from settings import BadInput, Settings
from tests.verify.backend import LAUNCH

with patch.object(monkey, "patch_all"):  # reading an inventory has no use for gevent's sockets: 0.08 s less
    from pyinfra_cli.inventory import make_inventory
    from pyinfra_cli.util import exec_file, parse_cli_arg

PYTHON = StringCommand("python3", "-I", "-S", "-c", QuoteString(LAUNCH))
MARK = "-- the program begins --"
SKIP = f"import sys; any(line == b'{MARK}\\n' for line in sys.stdin.buffer); "
SKIPPING = StringCommand("python3", "-I", "-S", "-c", QuoteString(SKIP + LAUNCH))  # as README's line for sudo allows
ATTEMPTS = 3  # how often sudo asks for a password by default (`passwd_tries`)


def read(inventory: str, limits: list[str], data: Sequence[str] = ()) -> list[Host]:
    """The hosts, as `pyinfra INVENTORY --limit … --data … deploy.py` has them in this folder. Raises BadInput."""
    state, config = State(), Config()
    state.cwd = str(Path.cwd())
    ctx_state.set(state)
    ctx_config.set(config)
    override = {key: parse_cli_arg(value) for key, _, value in (each.partition("=") for each in data)}
    try:
        if Path("config.py").exists():
            exec_file(str(Path("config.py").absolute()))
        found = make_inventory(inventory, cwd=state.cwd, override_data=override)
        ctx_inventory.set(found)
        state.init(found, config)
    except Exception as error:  # the operator's own code may raise anything
        cause = getattr(error, "exception", error)  # pyinfra wraps what the operator's code raises
        raise BadInput(f"{inventory} cannot be read: {type(cause).__name__}: {' '.join(str(cause).split())}") from None
    if not limits:
        return list(found)
    from pyinfra_cli.cli import _apply_inventory_limit  # not public, but the rule of `pyinfra --limit`; takes 0.06 s

    chosen = _apply_inventory_limit(found, limits)
    return [host for host in found if host in chosen]


def describe(host: Host) -> dict[str, Any]:
    """The fields of tests.verify.target.Target. Raises BadInput for a host that cannot be verified."""
    python, preamble = python_on(host)
    settings = Settings.load(host.data.dict())
    address, command = "", ["sh", "-c", python]
    if host.connector_cls is SSHConnector:
        address, command = ssh(host, python)
    return {
        "name": host.name,
        "settings": asdict(settings),
        "address": address,
        "command": command,
        "preamble": preamble,
    }


def python_on(host: Host) -> tuple[str, str]:
    """A command that starts Python under the host's global arguments, as a fact of pyinfra would be run; and what
    comes before the program on its standard input.

    pyinfra passes sudo's password in an argument list. Here it comes on standard input, which `sudo -S` reads byte by
    byte up to the end of the line. If sudo needs no password, or fewer attempts, the rest up to MARK is skipped.
    """
    if host.connector_cls not in (SSHConnector, LocalConnector):
        raise BadInput(f"{host.name}: bin/verify works over ssh and with @local, not with this connector")
    whole, _ = pop_global_arguments(host.state, host, {})
    arguments: Any = {key: value for key, value in whole.items() if key in CONNECTOR_ARGUMENT_KEYS}
    extract_control_arguments(arguments)  # takes out what shapes no command: time-out, standard input, …
    if arguments["_su_user"] and arguments["_su_password"]:
        raise BadInput(
            f"{host.name}: bin/verify cannot use _su_password: su would read it from the standard input, which carries "
            "the program; use _sudo, or connect as that user"
        )
    password = arguments["_sudo_password"] if arguments["_sudo"] else None
    if not password:
        return make_unix_command(PYTHON, **arguments).get_raw_value(), ""
    made = make_unix_command(SKIPPING, **arguments)
    bits = [each for bit in made.bits for each in (("-S", "-p", "''") if bit == "-A" else (bit,))]
    text = password.unmask() if isinstance(password, HiddenValue) else str(password)
    return StringCommand(*bits).get_raw_value(), f"{text}\n" * ATTEMPTS + f"{MARK}\n"


def ssh(host: Host, python: str) -> tuple[str, list[str]]:
    """The address to reach the host at, and the ssh command. What the inventory leaves open is up to ssh_config."""
    data = host.data
    name = data.get("ssh_hostname") or host.name
    checking = str(data.get("ssh_strict_host_key_checking", "yes")).lower()
    key = data.get("ssh_key")
    options = {
        "User": data.get("ssh_user"),
        "Port": data.get("ssh_port"),
        "IdentityFile": key,
        "IdentitiesOnly": "yes" if key else None,
        "UserKnownHostsFile": data.get("ssh_known_hosts_file"),
        "StrictHostKeyChecking": "no" if checking in ("no", "off") else "yes",  # accept-new would write a file
        "BatchMode": "yes",
        "ConnectTimeout": host.state.config.CONNECT_TIMEOUT,
        "LogLevel": "ERROR",
    }
    config_file = str(data.get("ssh_config_file") or "")
    flags = [word for option, value in options.items() if value for word in ("-o", f"{option}={value}")]
    aliases = get_ssh_config(config_file or None)
    address = aliases.lookup(name)["hostname"] if aliases else name
    return address, ["ssh", *(["-F", config_file] if config_file else []), *flags, "--", name, python]


def main() -> int:
    """Print the hosts, or what is wrong with them."""
    with os.fdopen(os.dup(1), "w") as answer:
        os.dup2(2, 1)  # what an inventory prints is for the operator
        inventory, limits, data = json.loads(sys.argv[1])
        try:
            json.dump([describe(host) for host in read(inventory, limits, data)], answer)
        except BadInput as error:
            json.dump(str(error), answer)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The operator's terminal: what pyinfra 3.10's command line leaves open, from exit codes to Ctrl-C.

pyinfra runs config.py before it reads the inventory, and that calls `attend`. deploy.py does too: from another folder
pyinfra does not see our config.py.
"""

import ast
import importlib
import inspect
import logging
import os
import select
import shlex
import signal
import sys
import termios
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from getpass import getpass
from pathlib import Path
from typing import Any, NoReturn

import click
import gevent
import pyinfra
from pyinfra import logger
from pyinfra.api import operations
from pyinfra.api.connect import connect_all
from pyinfra.api.exceptions import ConnectError, PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.state import BaseStateCallback, State, StateStage
from pyinfra.connectors import util
from pyinfra.context import ctx_config, ctx_host, ctx_state, state
from pyinfra_cli import prints
from pyinfra_cli.exceptions import CliError, WrappedError

from channel import Channel, prepare
from first_contact import first_contact
from remote import wire
from settings import BadInput

SOON = 0.01  # seconds
USAGE, STOPPED = 2, 130  # exit codes; 130 is what shells give for Ctrl-C


class WrongUsage(CliError, PyinfraError):  # type: ignore[misc]  # pyinfra_cli has no types
    """One line that says what to type instead. The second base keeps pyinfra from showing a traceback."""

    exit_code = USAGE


def attend() -> None:
    """Take over what pyinfra's command line decides, once a run. Raises WrongUsage."""
    from pyinfra_cli import cli

    if not pyinfra.is_cli or getattr(cli, "attended", False):
        return
    cli.attended = True
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # ✗ where the encoding has none
    if "NO_COLOR" in os.environ:
        vars(click.utils)["should_strip_ansi"] = lambda *_: True
    signal.signal(signal.SIGINT, partial(_interrupted, termios.tcgetattr(0) if os.isatty(0) else None))
    logging.getLogger("paramiko").addHandler(logging.NullHandler())  # else it prints the traceback of its own thread
    _check(parameters())
    cli._do_confirm = _asking(cli._do_confirm)
    vars(cli)["input"] = _answer
    cli.connect_all = _connect
    cli.print_run_json = _print_json
    cli.print_results = _print_results
    cli.run_ops = _run
    vars(operations)["run_host_op"] = _alone(operations.run_host_op)
    cli.WrappedError = _shown
    vars(util)["getpass"] = _password


def parameters() -> dict[str, Any]:
    """What was typed, as pyinfra reads it; it keeps no note of that itself."""
    from pyinfra_cli.cli import cli

    found: dict[str, Any] = cli.make_context("pyinfra", sys.argv[1:], resilient_parsing=True).params
    return found


def inventory() -> str:
    """The inventory that was typed."""
    return str(parameters()["inventory"])


def _check(typed: dict[str, Any]) -> None:
    words: Sequence[str] = typed["operations"]
    source, deploys = typed["inventory"], [each for each in words if each.endswith(".py") and words[0].endswith(".py")]
    setting = next((each for each in words if deploys and "=" in each), "")
    usage = "type: pyinfra INVENTORY deploy.py"
    if Path(source).name in ("deploy.py", "rollback.py", "bootstrap.py"):
        raise WrongUsage(f"{source} is not an inventory; {usage}")
    if source.endswith(".py") and not Path(source).exists():
        raise WrongUsage(f"there is no inventory {source}; {usage}")
    if wrong := next((each for each in typed["data"] if "=" not in each), ""):
        raise WrongUsage(f"--data {wrong} has no value; type: --data {shlex.quote(wrong)}=VALUE")
    if typed["no_wait"]:
        raise WrongUsage("leave out --no-wait: with it pyinfra treats a host that has failed as healthy")
    if setting:
        raise WrongUsage(f"{setting} is not a file; pass a setting with --data: --data {shlex.quote(setting)}")
    if source.endswith(".py"):
        _parse(source)
    for file in deploys:
        tree = _parse(file)
        if not any(isinstance(each, ast.Expr) and isinstance(each.value, ast.Call) for each in ast.walk(tree)):
            raise WrongUsage(f"{file} deploys nothing; is it an inventory? One inventory at a time; {usage}")
    if deploys and not (typed["yes"] or typed["dry"] or typed["json_output"] or sys.stdin.isatty()):
        raise WrongUsage("there is no terminal to ask on: add -y to apply, or --dry to see only the plan")


def _parse(file: str) -> ast.Module:
    try:
        return ast.parse(Path(file).read_bytes(), file)
    except (SyntaxError, ValueError) as error:
        line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise WrongUsage(f"{file}{line} is not valid Python: {error.args[0]}") from None


def _shown(error: PyinfraError) -> WrappedError:
    """Our own lines say it all: the operator cannot mend the file and line of our source before them."""
    shown = WrappedError(error)
    if not type(error).__module__.startswith("pyinfra"):
        shown.traceback = None
    return shown


def _interrupted(modes: list[Any] | None, *_: object) -> NoReturn:
    """The host sees the connection end, and finishes or puts back by itself. The terminal gets its `modes` back: while
    it asks for a password, it shows nothing that is typed."""
    if modes:
        with suppress(termios.error):
            termios.tcsetattr(0, termios.TCSANOW, modes)
    begun = ctx_state.isset() and state.is_executing
    what = "a step in progress will finish on the host; run again for the rest" if begun else "nothing was changed"
    os.write(2, f"\n    Stopped: {what}.\n".encode())
    os._exit(STOPPED)


def _asking(confirm: Callable[[str], bool]) -> Callable[[str], bool]:
    def ask(question: str) -> bool:
        if not sys.stdin.isatty():
            raise WrongUsage(f"{question.partition(',')[0]}; no terminal to ask whether to continue: add -y")
        try:
            agreed = confirm(question)
        except EOFError:  # Ctrl-D
            agreed = False
        if not agreed and not state.failed_hosts:
            logger.error("Stopped: nothing was changed.")
            sys.exit(STOPPED)
        if agreed and state.current_stage == StateStage.Prepare:
            _require_the_plan_shown()
        return agreed

    return ask


def _answer() -> str:
    """Like `input`, but the other hosts' sessions keep getting their signs of life."""
    select.select([sys.stdin], [], [])  # gevent's, as pyinfra has it
    return input()


def _require_the_plan_shown() -> None:
    """If a host has changed between the plan and Enter, it is planned and asked again."""
    hosts = [host for host in state.inventory.get_active_hosts() if Channel.of(host).answers]

    def is_as_planned(host: Host) -> bool:
        with ctx_config.use(state.config.copy()), ctx_host.use(host):
            return Channel.of(host).is_as_planned()

    same = state.pool.map(is_as_planned, hosts)
    if all(same):
        return
    changed = ", ".join(host.name for host, is_same in zip(hosts, same, strict=True) if not is_same)
    logger.warning(f"{changed}: changed since this plan was made. Nothing was done. The new plan:")
    for host in hosts:
        Channel.of(host).end("ok")
    os.execv(sys.executable, sys.orig_argv)


def _password(prompt: str) -> str:
    if not sys.stdin.isatty():
        raise BadInput("sudo needs a password, and there is no terminal for it: set _sudo_password, or NOPASSWD")
    return getpass(prompt)


def _connect(state: State) -> None:
    if not any(map(state.is_host_in_limit, state.inventory)):
        raise WrongUsage(f"{inventory()} has no host to work on (after --limit and --exclude)")
    state.add_callback_handler(_FirstContact())
    gevent.spawn_later(SOON, _prepare)
    try:
        connect_all(state)
    except WrongUsage:
        raise
    except PyinfraError as error:
        raise CliError(str(error)) from None  # else pyinfra names this line as its origin


def _prepare() -> None:
    """Load what deploy.py needs, an eighth of a second of CPU, while the connection is being made."""
    if "deploy.py" in map(os.path.basename, parameters()["operations"]):
        with suppress(Exception):  # deploy.py itself will say it
            for name in ("migration", "nginx", "npm", "source", "preflight"):
                importlib.import_module(f"operations.{name}")
                gevent.sleep(0)  # an answer may have come meanwhile
            prepare()
            inspect.stack()  # pyinfra looks at it for each operation; the first time, it goes through all modules


def _print_json(state: State, dry: bool) -> None:
    """pyinfra's own, and for each host the plan's name, every change with its reasons, and what is pending."""
    hosts = {host.name: Channel.of(host) for host in state.inventory.iter_activated_hosts()}
    told = {name: {"plan": of.plan, "changes": of.reasons, "pending": of.pending} for name, of in hosts.items()}
    results = None if dry else prints.build_results_json(state)
    prints.print_json({"plan": prints.build_plan_json(state), "results": results, "hosts": told})


def _print_results(state: State) -> None:
    prints.print_results(state)
    _tell_in_short(state)


def _run(state: State, **how: Any) -> None:
    """With --fail-percent, or if the operator says no, pyinfra ends at a failed host without any results."""
    try:
        operations.run_ops(state, **how)
    except PyinfraError:
        if len(state.activated_hosts) > 1:  # for one the red lines do
            _tell_in_short(state)
        raise
    state.pool.map(_end, state.inventory.get_active_hosts())


def _alone(run: Callable[[State, Host, str], bool]) -> Callable[[State, Host, str], bool]:
    """What an operation raises on one host fails that host. pyinfra would end the run for all, and name none. Of
    several, so does a host that somebody else deploys to."""

    def run_host_op(state: State, host: Host, op_hash: str) -> bool:
        try:
            return run(state, host, op_hash)
        except (PyinfraError, SystemExit) as error:
            if isinstance(error, PyinfraError):
                host.log_styled(wire.printable(str(error)), fg="red", log_func=logger.error)
            elif len(state.activated_hosts) == 1:
                raise
            state.results[host].error_ops += 1
            return False

    return run_host_op


def _end(host: Host) -> None:
    """Here, where the exit code can still say that the host gave us up and put its files back."""
    with ctx_config.use(state.config.copy()), ctx_host.use(host):
        Channel.of(host).end("ok")


def _tell_in_short(state: State) -> None:
    typed = parameters()
    is_bare = "bootstrap.py" in map(os.path.basename, typed["operations"])
    is_verified = "verify=true" in typed["data"]
    logger.info("--> In short:")
    for host in filter(state.is_host_in_limit, state.inventory):
        channel, has_failed = Channel.of(host), host in state.failed_hosts
        if not has_failed and not state.results[host].ops:
            host.log("not started: nothing was changed there")
            continue
        nothing = "nothing" if has_failed else "nothing, it is as it should be"
        changed = _changed(state, host) if is_bare else channel.changed
        host.log(f"changed: {', '.join(changed) or nothing}")
        if channel.pending:
            it, it_comes = ("it", "it comes") if len(channel.pending) == 1 else ("them", "they come")
            keys = ", ".join(channel.pending)
            host.log(f"pending: {keys}; put {it} into .env in this folder when {it_comes}, and run again")
        if has_failed:
            host.log("failed: the red lines above say why, and what to do")
        elif not is_verified:
            words = ["pyinfra", inventory(), "deploy.py"] if is_bare else ["bin/verify", inventory()]
            host.log(f"next: {shlex.join([*words, '--limit', host.name])}")


def _changed(state: State, host: Host) -> list[str]:
    """What pyinfra's own operations changed: bootstrap.py's."""
    found = {hash: data.operation_meta for hash, data in state.ops[host].items()}
    done = [hash for hash, meta in found.items() if meta.is_complete() and meta.did_change()]
    return list(dict.fromkeys(name for hash in done for name in sorted(state.get_op_meta(hash).names)))


class _FirstContact(BaseStateCallback):
    @staticmethod
    def host_connect_error(state: State, host: Host, error: ConnectError) -> None:
        del state
        data, place = host.data, host.data.get("ssh_hostname") or host.name
        options = {"UserKnownHostsFile": data.get("ssh_known_hosts_file"), "Port": data.get("ssh_port")}
        words = [word for name, value in options.items() if value for word in ("-o", f"{name}={value}")]
        words += ["-i", str(data.ssh_key)] if data.get("ssh_key") else []
        login = f"{data.ssh_user}@{place}" if data.get("ssh_user") else place
        ssh = shlex.join(["ssh", *words, login])
        for line in first_contact(str(error), ssh, place, options["Port"], options["UserKnownHostsFile"]):
            host.log_styled(wire.printable(line), fg="red", log_func=logger.error)

"""How the host's half (`remote/`) gets to the host and back, and what the laptop knows of each host meanwhile.

Modules and input go together over standard input, as one line. So nothing runs unless all of it came, and no secret is
in an argument list, an environment or a file. A step is one process, and so is a session, which looks.
"""

import getpass
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import unified_diff
from functools import cache
from pathlib import Path
from typing import Any, Concatenate, Generic, ParamSpec, Self, cast

import gevent
from gevent.subprocess import PIPE, Popen
from paramiko.client import SSHClient
from paramiko.file import BufferedFile
from paramiko.ssh_exception import SSHException
from pyinfra import logger
from pyinfra.api.arguments import CONNECTOR_ARGUMENT_KEYS, ConnectorArguments, pop_global_arguments
from pyinfra.api.command import QuoteString, StringCommand
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host
from pyinfra.api.output import echo
from pyinfra.api.state import BaseStateCallback, State, StateStage
from pyinfra.connectors.local import LocalConnector
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.connectors.util import (
    CommandOutput,
    OutputLine,
    execute_command_with_sudo_retry,
    extract_control_arguments,
    make_unix_command,
    make_unix_command_for_host,
)

import remote.look
import remote.session
import remote.step
from remote import files, wire
from settings import BadInput

P = ParamSpec("P")

HERE = Path(__file__).resolve().parent
MAX_AGE = 5  # seconds that a look is good for: between the plan and the operator's Enter anything may happen
TIMEOUT = 60  # seconds for a look
CLOSING = 5  # seconds for the host to write its audit log
SILENT = 40  # seconds for it to say what it has put back
DEAF = 30  # seconds in which nothing that was sent arrives, and the connection counts as lost; Linux waits 15 minutes
LONG = 100  # characters
WIDE = 200  # characters of a line of --diff
SLOW, STILL = 2, 10  # seconds until a step is reported as running; between reports
UNHEARD = "the connection was lost before the host confirmed that the changes stay; run again"
LOCKED = 75  # exit code: somebody else deploys; EX_TEMPFAIL of sysexits.h

UNUSED = 90  # seconds after which a program that gets no input ends: a dead connection may stay open for hours
FRESH = 15  # seconds for which one that was started ahead is used: it must not end while its input is on the way
# Reads one line: the modules, a space, [function, arguments]; makes the modules importable, calls the function.
_BOOTSTRAP = """import signal, sys  # ai-admin-deploy
signal.alarm(UNUSED)
sys.stdin.buffer.peek(1)
signal.alarm(0)
line = sys.stdin.buffer.readline()
if sys.version_info < (3, 10):
    sys.exit("python3 on the host is %d.%d, and 3.10 or newer is needed" % sys.version_info[:2])
if not line.endswith(b"\\n"):
    print("the connection was cut: nothing was done", file=sys.stderr)
    sys.exit(75)
import binascii, importlib, json, zlib
from importlib.machinery import ModuleSpec
sources, (function, arguments) = [json.loads(zlib.decompress(binascii.a2b_base64(part))) for part in line.split()]
class Sent:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self, is_package="." not in name) if name in sources else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        name = module.__name__
        exec(compile(sources[name], name.replace(".", "/") + ".py", "exec"), module.__dict__)
    def get_source(self, name):
        return sources[name]
sys.meta_path.insert(0, Sent())
sys.excepthook = lambda *error: __import__("traceback").print_exception(*error)  # with the lines, before 3.13 too
module, _, name = function.rpartition(".")
getattr(importlib.import_module(module), name)(**arguments)
""".replace("UNUSED", str(UNUSED))
PYTHON = StringCommand("python3", "-I", "-S", "-X", "utf8", "-c", QuoteString(_BOOTSTRAP))


class HostUnfit(BadInput):
    """The host cannot be read, or lacks something. The message names the remedy."""


# pyinfra shows its errors in one line; in the run, gevent 26 would print a traceback before it.
gevent.get_hub().NOT_ERROR = (*gevent.get_hub().NOT_ERROR, PyinfraError)


def _unraisable(error: Any) -> None:
    """paramiko 4 closes a channel's files when they are collected, and fails where the connection is gone."""
    if error.object is not BufferedFile.__del__:
        sys.__unraisablehook__(error)


sys.unraisablehook = _unraisable


@cache
def _modules() -> str:
    sources = sorted(Path(remote.look.__file__).parent.glob("*.py"))  # of the package that is imported
    names = {file: "remote" if file.stem == "__init__" else f"remote.{file.stem}" for file in sources}
    return wire.pack({name: file.read_text(encoding="utf-8") for file, name in names.items()})


def prepare() -> None:
    """What takes time and needs no host."""
    _modules()
    bundle()


def digests() -> str:
    """What a key that can only converge may start, a line each: see files/usr/local/sbin/ai-admin-converge."""
    modules = json.dumps(wire.unpack(_modules()))  # unpacked: each laptop's zlib packs differently
    known = {"the command": make_unix_command(PYTHON).get_raw_value(), "the modules": modules}
    return "".join(f"{files.sha256(text.encode())} {what} of {bundle()}\n" for what, text in known.items())


def message(function: Callable[P, object], /, *_: P.args, **arguments: P.kwargs) -> str:
    """Standard input for PYTHON: a call of a function of `remote`, whose arguments are all given by name."""
    return f"{_modules()} {wire.pack([_name(function), arguments])}\n"


def _name(function: Callable[..., object]) -> str:
    return f"{function.__module__}.{function.__name__}"


class Step(StringCommand, Generic[P]):
    """The one remote command that makes one change: a call of a function of `remote`, with what it needs and no more.

    It completes, or leaves the old state and says why. The function gets the deploy's id first.
    """

    def __init__(self, function: Callable[Concatenate[str, P], object], /, *_: P.args, **arguments: P.kwargs) -> None:
        if _:
            raise TypeError(f"{_name(function)}: give every argument by its name")
        super().__init__(*PYTHON.bits)
        self.function, self.arguments = _name(function), {**arguments}

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        channel = Channel.of(host)
        channel.looked = 0.0  # something will change
        _open_ahead(host)
        step = message(remote.step.step, function=self.function, deploy=channel.deploy, arguments=self.arguments)
        sent = cast(ConnectorArguments, {**connector_arguments, "_stdin": step})
        waiting = gevent.spawn(_show_progress, host, channel.step_name)
        try:
            done: tuple[bool, CommandOutput] = super().execute(state, host, sent)
        except EOFError:  # which pyinfra 3.10 does not expect, and shows as a traceback
            raise SSHException("the connection was lost; run again") from None
        finally:
            waiting.kill()
        if done[0]:
            with suppress(ValueError, IndexError, AttributeError):  # it is done, whatever a login script prints
                channel.say([str(line) for line in json.loads(done[1].stdout_lines[-1]).get("said", [])])
        elif not done[1].output.strip():  # killed, or the laptop slept
            host.log_styled("the step's program on the host ended without an answer; run again", fg="red")
        if done[0] and channel.step_name not in channel.changed:
            channel.changed.append(channel.step_name)
        return done


@dataclass
class Channel:
    """What the laptop knows of one host in one run. It hangs on the host.

    `app`: which is deployed, by its name in pm2; empty where an operation is used alone. `asked` are the arguments by
    noun that a look must answer for, `answers` what the last look found. `planned`: by service, what will change in
    what it reads, for the plan alone. `plan` names it, `reasons` are its lines by operation. `pending`: what waits for
    the operator. `session` is there while it holds the lock.
    """

    host: Host
    deploy: str = ""
    app: str = ""
    lock_wait: int = 0
    asked: dict[str, dict[str, Any]] = field(default_factory=dict)
    answered: dict[str, dict[str, Any]] = field(default_factory=dict)
    answers: dict[str, Any] = field(default_factory=dict)
    looked: float = 0.0
    planned: dict[str, list[str]] = field(default_factory=dict)
    plan: str = ""
    reasons: dict[str, list[str]] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    session: "Session | None" = None

    @classmethod
    def of(cls, host: Host) -> Self:
        found = host.connector_data.get("ai-admin-deploy")
        if found is None:  # `host` may be pyinfra's stand-in for the one in hand, which another greenlet does not have
            found = cls(host.state.inventory.get_host(host.name))
        host.connector_data["ai-admin-deploy"] = found
        return cast(Self, found)

    def look(self, lock: bool = True) -> dict[str, Any]:
        """By noun, what its `read` found, for all that were asked: in a new look, or one still good. Raises HostUnfit.

        The first look of a run that changes the host takes the lock before it looks, and keeps it, if `lock`.
        """
        state = self.host.state
        is_applying = state.is_executing or not state.check_for_changes  # a plan and `--dry` are not
        takes_lock = lock and is_applying and self.session is None
        if takes_lock or self.answered != self.asked or time.monotonic() - self.looked > MAX_AGE:
            self._renew(takes_lock)
        return self.answers

    def is_as_planned(self) -> bool:
        """Takes the lock, and checks that the plan shown still holds for this host. Raises HostUnfit."""
        planned = stable(self.answers)
        self._renew(takes_lock=True)
        return bool(planned == stable(self.answers))

    def _renew(self, takes_lock: bool) -> None:
        answer = self._ask(takes_lock)
        self.deploy = answer.get("deploy", self.deploy)
        self.answers, self.answered, self.looked = answer["readings"], dict(self.asked), time.monotonic()

    def end(self, result: str) -> None:
        """The host writes its audit line, puts back what nothing has loaded, and lets go of the lock."""
        if not self.session:
            return
        said, back = {"result": result, "changed": self.changed}, None
        with suppress(*LOST):
            back = self.session.close(said)
            if back is None and self.deploy:  # it was killed: another one does what is left to do
                self._start(resumed=self.deploy)
                back = self.session.close(said)
        told = {"put_back": "put back, because nothing had loaded it yet", "stuck": "could not be put back"}
        lines = [f"{told[what]}: {file}" for what, found in (back or {}).items() for file in found]
        self.say(lines)
        if result == "ok" and (lines or (back is None and self.changed)):
            self.host.log_styled(remote.step.ENDED if lines else UNHEARD, fg="red", log_func=logger.error)
            self.host.state.failed_hosts.add(self.host)
        self.session = None

    def _ask(self, takes_lock: bool) -> dict[str, Any]:
        name = self.host.name
        try:
            output = self._start() if takes_lock else self.session.look(self.asked) if self.session else self._run()
        except (SSHException, EOFError, OSError, UnicodeDecodeError) as error:
            why = f"no answer for {TIMEOUT} s" if isinstance(error, TimeoutError) else str(error) or "closed"
            raise HostUnfit(f"the connection to {name} was lost ({why}); run again") from None
        try:
            answer: dict[str, Any] = wire.unpack(output.stdout_lines[-1])
        except IndexError:
            raise HostUnfit(_why(output.stderr_lines, name)) from None
        except ValueError:
            raise HostUnfit(f"{name} sent an answer we cannot read: does a login script print something?") from None
        if self.host.state.print_fact_output:
            echo(f"{self.host.print_prefix}{json.dumps(shown(answer))}", err=True)
        if "locked" in answer:
            other = {"who": "somebody", "from": "somewhere", "since": "just now", **answer["locked"]}  # not written yet
            text = wire.printable(f"{other['who']} from {other['from']} has been deploying since {other['since']}")
            self.host.log_styled(f"{text}; wait, or add --data lock_wait=60 (seconds)", fg="red", log_func=logger.error)
            raise SystemExit(LOCKED)
        if "busy" in answer:
            raise HostUnfit(f"a step of an earlier deploy still runs on {name}; run again in a minute")
        return answer

    def arguments(self) -> ConnectorArguments:
        """pyinfra's global arguments (_sudo, _env …) as they hold now: in an operation, or outside of one."""
        given = dict(self.host.current_op_global_arguments or {})
        found: Mapping[str, Any] = pop_global_arguments(self.host.state, self.host, given)[0]
        if found.get("_su_user") and found.get("_su_password"):
            raise BadInput("_su_password: su with a password leaves our programs no standard input; use _sudo")
        if found.get("_get_pty"):
            raise BadInput("_get_pty: a terminal would echo what is sent to our programs; leave it out")
        return cast(ConnectorArguments, {key: found[key] for key in CONNECTOR_ARGUMENT_KEYS if key in found})

    def _run(self) -> CommandOutput:
        arguments = {**self.arguments(), "_stdin": message(remote.look.show, questions=self.asked), "_timeout": TIMEOUT}
        return self.host.run_shell_command(PYTHON, print_input=self.host.state.print_fact_input, **arguments)[1]

    def _start(self, resumed: str = "") -> CommandOutput:
        """Take the lock and look; the process stays, and with it the lock, until the connection ends. Or only take it
        again, for a deploy whose session was killed."""
        wait, own = (0, {}) if resumed else (self.lock_wait, self.asked)
        begin = message(
            remote.session.session,
            who=f"{_user()}@{socket.gethostname()}",
            app=self.app,
            bundle=bundle(),
            wait=wait,
            questions=own,
            resumed=resumed,
        )
        arguments = self.arguments()
        extract_control_arguments(arguments)

        def attempt() -> tuple[int, CommandOutput]:
            command = make_unix_command_for_host(self.host.state, self.host, PYTHON, **arguments)
            if self.host.state.print_fact_input:
                echo(f"{self.host.print_prefix}>>> {command}", err=True)
            with gevent.Timeout(TIMEOUT + wait, TimeoutError):
                return self._open(command.get_raw_value(), begin)

        output: CommandOutput = execute_command_with_sudo_retry(self.host, arguments, attempt)[1]
        return output

    def _open(self, command: str, begin: str) -> tuple[int, CommandOutput]:
        session = Session(*_streams(self.host, command))
        if line := session.ask(begin):
            self.session = session
            if not any(isinstance(each, _AtTheEnd) for each in self.host.state.callback_handlers):
                self.host.state.add_callback_handler(_AtTheEnd())
            return 0, CommandOutput([OutputLine("stdout", line)])
        return 1, CommandOutput([OutputLine("stderr", line) for line in _text(session.stderr.read()).splitlines()])

    def say(self, lines: list[str], service: str = "", what: str = "") -> None:
        """What changes, a line each, in the plan and in the run. In the plan: `what` the service will have to load."""
        for line in lines:
            self.host.log(f"  {wire.printable(line)}")
        if not self.host.state.is_executing and (operation := self.host.current_op_hash):
            self.reasons.setdefault(self._name_of(operation), []).extend(map(wire.printable, lines))
        if service and not self.host.state.is_executing:
            self.planned.setdefault(service, []).append(f"{what} will change")

    def diff(self, file: str, old: bytes, new: bytes) -> None:
        """With --diff, how a text becomes another, once a run: in the plan, or with -y as it is done."""
        state = self.host.state
        if state.config.DIFF and state.is_executing != state.check_for_changes:
            before, after = (text.decode(errors="replace").splitlines() for text in (old, new))
            for line in unified_diff(before, after, file, file, n=1, lineterm=""):
                self.host.log(f"    {wire.printable(line)[:WIDE]}")

    @property
    def step_name(self) -> str:
        """The running operation's."""
        operation = self.host.executing_op_hash
        return self._name_of(operation) if operation else "a step"

    def _name_of(self, operation: str) -> str:
        return ", ".join(sorted(self.host.state.get_op_meta(operation).names))

    def ahead(self, service: str) -> list[str]:
        """In the plan: what will change that the service must load. In the run that is written by now, and shows."""
        return [] if self.host.state.is_executing else self.planned.get(service, [])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a CI's container may run as a uid without a name
        return f"uid {os.getuid()}"


def _show_progress(host: Host, name: str) -> None:
    began = time.monotonic()
    gevent.sleep(SLOW)
    while True:
        host.log(f"  … {name}: {time.monotonic() - began:.0f} s so far")
        gevent.sleep(STILL)


LOST = (OSError, EOFError, SSHException, subprocess.TimeoutExpired, ValueError, IndexError)


@dataclass
class Session:
    """The program on the host that holds the lock: its standard streams, and what ends its input and waits for it."""

    stdin: Any
    stdout: Any
    stderr: Any
    end: Callable[[], None]
    life: gevent.Greenlet = field(default_factory=gevent.Greenlet)

    def ask(self, line: str) -> str:
        """The line that it answers; empty where it has ended."""
        self._send(line)
        answer = _text(self.stdout.readline())
        self.life = gevent.spawn(self._show_life)
        return answer

    def look(self, questions: dict[str, Any]) -> CommandOutput:
        line = ""
        try:
            with gevent.Timeout(TIMEOUT, TimeoutError):
                line = self.ask(f"{wire.pack({'questions': questions})}\n")
        except OSError as error:  # the session may have ended alone, or with the whole connection
            if isinstance(error, TimeoutError) or not self._is_connected():
                raise
        return CommandOutput([OutputLine("stdout", line) if line else OutputLine("stderr", remote.step.ENDED)])

    def _is_connected(self) -> bool:
        channel = getattr(self.stdin, "channel", None)
        return channel is None or bool(channel.get_transport().is_active())

    def _show_life(self) -> None:
        """Without it the host ends the deploy: a connection may be dead and not closed, and this laptop asleep."""
        with suppress(*LOST):
            while True:
                gevent.sleep(remote.session.BEAT)
                self.stdin.write(b"\n")
                self.stdin.flush()

    def _send(self, line: str) -> None:
        self.life.kill()  # a sign of life in the middle of the line would cut it
        self.stdin.write(line.encode())
        self.stdin.flush()

    def close(self, said: dict[str, Any]) -> dict[str, list[str]] | None:
        """The host then writes its audit line and lets go of the lock. Returns what it has put back, and what it could
        not; None where it was killed. Raises LOST where nothing is heard from it."""
        with suppress(OSError):  # it may have ended, and have said why
            self._send(f"{wire.pack(said)}\n")
            self.end()
        if lines := _text(self.stdout.read()).split():
            back: dict[str, list[str]] = wire.unpack(lines[-1])
            return back
        if not self._is_connected():
            raise EOFError
        return None


class _AtTheEnd(BaseStateCallback):
    @staticmethod
    def host_disconnect(state: State, host: Host) -> None:
        channel = Channel.of(host)
        fine = state.current_stage == StateStage.Disconnect and host not in state.failed_hosts
        channel.end("ok" if fine else "failed")


def _streams(host: Host, command: str) -> tuple[Any, Any, Any, Callable[[], None]]:
    """Standard input, output and error of a command that runs on, and how to end its input and wait for it."""
    if isinstance(host.connector, LocalConnector):
        process = Popen(command, shell=True, stdin=PIPE, stdout=PIPE, stderr=PIPE)  # noqa: S604 -- pyinfra's quoting

        def close() -> None:
            process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(CLOSING)

        return process.stdin, process.stdout, process.stderr, close
    if not isinstance(host.connector, SSHConnector) or host.connector.client is None:
        raise BadInput(f"{host.name} uses neither ssh nor @local; the inventory must name a host that does")
    with suppress(AttributeError, OSError):  # not Linux, or a proxy's pipe
        connection = cast(Any, host.connector.client.get_transport()).sock
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAF * 1000)
    stdin, stdout, stderr = begin(host.connector.client, command)

    def end() -> None:
        stdin.channel.settimeout(SILENT)
        stdin.channel.shutdown_write()
        stdin.channel.status_event.wait(CLOSING)

    return stdin, stdout, stderr, end


def begin(client: SSHClient, command: str) -> tuple[Any, Any, Any]:
    """As paramiko 4's `exec_command`, less the round trip until sshd has said that the command runs: what is sent to it
    may follow at once. Where it cannot run, its output ends."""
    transport = client.get_transport()
    if transport is None:
        raise EOFError
    channel = transport.open_session()
    vars(channel)["_wait_for_event"] = lambda: None
    channel.exec_command(command)
    return channel.makefile_stdin("wb", -1), channel.makefile("r", -1), channel.makefile_stderr("r", -1)


class _Ahead:
    """Starts our next program on the host while one runs, which saves each two round trips and Python's start.

    It stands for paramiko's client in pyinfra's connector. A program that gets no input does nothing, and ends.
    """

    def __init__(self, client: SSHClient) -> None:
        self.client = client
        self.next: dict[str, tuple[float, gevent.Greenlet[[str], Any]]] = {}  # by command: since when, and what

    def __getattr__(self, name: str) -> Any:
        return getattr(self.client, name)

    def exec_command(self, command: str, **options: Any) -> Any:
        began, opening = self.next.pop(command, (0.0, None))
        opened = opening.get() if opening is not None and time.monotonic() - began < FRESH else None
        if opened is None or opened[0].channel.closed:
            opened = self.client.exec_command(command, **options)
        if _BOOTSTRAP.partition("\n")[0] in command:
            self.next[command] = time.monotonic(), gevent.spawn(self._open, command)
        return opened

    def _open(self, command: str) -> Any:
        with suppress(*LOST):  # sshd's MaxSessions, or the connection is gone: then it is opened when it is needed
            return self.client.exec_command(command)
        return None


def _open_ahead(host: Host) -> None:
    connector = host.connector
    if isinstance(connector, SSHConnector) and isinstance(connector.client, SSHClient):
        connector.client = cast(Any, _Ahead(connector.client))


def stable(readings: Mapping[str, Any]) -> dict[str, Any]:
    """What a plan depends on. Not a table's estimated rows, which PostgreSQL counts anew at any time. Of an API that
    ends again and again: must it be restarted, whenever it was seen."""
    kept, migration, api = dict(readings), readings.get("migration", {}), readings.get("pm2", {})
    if "relations" in migration:
        relations = {name: {**each, "rows": 0} for name, each in migration["relations"].items()}
        kept["migration"] = {**migration, "relations": relations}
    if "status" in api:
        by_hand = api["status"] if api["status"] in ("stopped", "unknown", "no daemon") else ""
        crashing = {"by_hand": by_hand, "held": api["held"], "folder": api["folder"]}  # see operations/pm2.check
        restarts = api["status"] != "online" or api["stale"]
        kept["pm2"] = crashing if restarts else {**api, "ending": "", "held_in": ""}
    return kept


def shown(value: Any) -> Any:
    """An answer as it is printed: with a digest for a long text, which is a file's."""
    if isinstance(value, dict):
        return {key: shown(each) for key, each in value.items()}
    if isinstance(value, str) and len(value) > LONG:
        return f"{len(value)} characters, SHA-256 {files.sha256(files.content(value))}"
    return value


def _text(read: str | bytes) -> str:
    return read if isinstance(read, str) else read.decode(errors="replace")


def _why(complaints: list[str], name: str) -> str:
    lines = [line.strip() for line in complaints if line.strip()]
    if any("python3: not found" in line or "python3: command not found" in line for line in lines):
        return f"python3 is not installed on {name}: apt-get install python3"
    return f"{name} cannot be read: {lines[-1] if lines else 'no answer; run again'}"


@cache
def bundle() -> str:
    """`git describe` of this bundle, or "unknown" where it is not a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--tags"]
    with suppress(FileNotFoundError):
        return subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout.strip() or "unknown"
    return "unknown"


if __name__ == "__main__":
    print(digests(), end="")

"""The way to the host: what is sent runs whole or not at all, leaves no trace, and says where it broke."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gevent
import paramiko
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paramiko import SSHClient
from paramiko.common import AUTH_SUCCESSFUL, OPEN_SUCCEEDED
from paramiko.ssh_exception import ChannelException
from pyinfra.api.host import Host

import channel
import remote.files
import remote.look
import remote.step
from remote import lock, wire
from remote.pm2 import STOPPED
from settings import BadInput
from tests.unit.conftest import ROOT
from tests.unit.remote.conftest import on_host

SMALL = {"remote": "def mark(*, path):\n    open(path, 'w').write('ran')\n"}


def small(path: Path) -> bytes:
    """A message of a few bytes: one function, which writes a file."""
    return f"{wire.pack(SMALL)} {wire.pack(['remote.mark', {'path': str(path)}])}\n".encode()


def cut_runs(whole: bytes, lengths: list[int], folder: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda length: on_host(whole[:length], cwd=folder), lengths))
    assert {each.returncode for each in done} == {75}
    assert {each.stderr for each in done} == {b"the connection was cut: nothing was done\n"}
    assert {each.stdout for each in done} == {b""}
    assert not list(folder.iterdir())


def test_a_message_cut_anywhere_runs_nothing(tmp_path: Path) -> None:
    whole = small(Path("F"))
    assert len(whole) > 100

    cut_runs(whole, list(range(len(whole))), tmp_path)

    assert on_host(whole, cwd=tmp_path).returncode == 0
    assert (tmp_path / "F").read_text() == "ran"


def test_a_real_message_cut_in_places_runs_nothing(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"path": str(tmp_path / "F"), "content": "x"}
    whole = channel.message(remote.step.step, function="remote.files.write_whole", deploy="", arguments=arguments)
    between = whole.index(" ")
    places = [0, 1, between - 1, between, between + 1, between + 2, len(whole) - 3, len(whole) - 2, len(whole) - 1]

    cut_runs(whole.encode(), [*places, *range(100, len(whole), len(whole) // 20)], tmp_path)


def test_a_step_runs_the_function_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = json.loads(json.dumps(wire.unpack(channel._modules())))
    sources["remote.lock"] = sources["remote.lock"].replace('"/run/ai-admin-deploy"', repr(f"{tmp_path}/run"))
    sources["remote.mark"] = "def mark(deploy, *, to):\n    open(to, 'w').write(deploy)\n    return {'seconds': 1}\n"
    arguments = {"function": "remote.mark.mark", "deploy": "20260101T000000Z", "arguments": {"to": f"{tmp_path}/F"}}

    monkeypatch.setattr(lock, "FOLDER", f"{tmp_path}/run")
    with lock.held(lock.DEPLOY, 0) as session:
        assert session is not None
        os.write(session, b'{"deploy": "20260101T000000Z"}')
        done = on_host(f"{wire.pack(sources)} {wire.pack(['remote.step.step', arguments])}\n")

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == {"seconds": 1}
    assert (tmp_path / "F").read_text() == "20260101T000000Z"


def test_a_look_answers_in_one_line(tmp_path: Path) -> None:
    questions = {"source": {"app_dir": str(tmp_path), "paths": ["a.js"], "mention": "x"}, "nothing": {}}
    done = on_host(channel.message(remote.look.show, questions=questions))

    assert done.stdout.count(b"\n") == 1
    readings = wire.unpack(done.stdout)["readings"]
    assert readings["source"] == {"a.js": None}
    assert readings["nothing"] == {"error": "nothing is no noun"}


def test_a_traceback_names_file_line_and_source(tmp_path: Path) -> None:
    sources = wire.unpack(channel._modules())
    sources["remote.files"] = f"{sources['remote.files']}\n\ndef broken(*, by):\n    return 1 // by  # here it breaks\n"
    line = sources["remote.files"].count("\n")

    done = on_host(f"{wire.pack(sources)} {wire.pack(['remote.files.broken', {'by': 0}])}\n", cwd=tmp_path)

    assert done.returncode == 1
    assert f'File "remote/files.py", line {line}, in broken' in done.stderr.decode()
    assert "return 1 // by  # here it breaks" in done.stderr.decode()


def test_an_old_python_is_refused_in_one_line(tmp_path: Path) -> None:
    old = sorted(Path.home().glob(".pyenv/versions/3.[6-9].*/bin"))
    if not old:
        pytest.skip("there is no Python older than 3.10 in ~/.pyenv/versions")
    done = on_host(small(tmp_path / "F"), str(old[0]))
    assert done.returncode == 1
    assert done.stderr.decode().endswith("and 3.10 or newer is needed\n")
    assert not (tmp_path / "F").exists()


def test_nothing_of_the_input_is_in_the_argument_list_or_the_environment() -> None:
    process = subprocess.Popen(
        ["sh", "-c", f"exec {channel.PYTHON.get_raw_value()}"],
        stdin=subprocess.PIPE,
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    assert process.stdin
    sources = {"remote": "import sys\ndef stay(*, secret):\n    sys.stdin.read()\n"}
    sent = f"{wire.pack(sources)} {wire.pack(['remote.stay', {'secret': 'q0vW3x9Qk'}])}"
    process.stdin.write(f"{sent}\n".encode())
    process.stdin.flush()
    try:
        time.sleep(0.1)
        assert process.poll() is None
        visible = b"".join(Path(f"/proc/{process.pid}/{file}").read_bytes() for file in ("cmdline", "environ"))
    finally:
        process.stdin.close()
        process.wait(10)
    assert b"ai-admin-deploy" in visible
    assert not any(part.encode() in visible for part in ("q0vW3x9Qk", *sent.split()))
    assert channel.PYTHON.get_raw_value() == str(channel.PYTHON)  # the same for each host and call: nothing is masked


SNIPPET = """
import remote.nginx
from channel import Step, message

Step(remote.nginx.reload, timeout=1.0)
Step(remote.nginx.reload, seconds=1.0)
Step(remote.nginx.reload, timeout="1")
Step(remote.nginx.reload)
message(remote.nginx.read, site="a", domain="b")
message(remote.nginx.read, site="a", domain=1)
"""


@pytest.mark.slow
def test_mypy_checks_the_arguments_of_a_step(tmp_path: Path) -> None:
    (tmp_path / "snippet.py").write_text(SNIPPET)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(tmp_path / "snippet.py")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    lines = [line for line in done.stdout.splitlines() if "snippet.py:" in line and "error" in line]
    wrong = sorted({int(line.split("snippet.py:")[1].split(":")[0]) for line in lines})
    assert wrong == [6, 7, 8, 10], done.stdout


# --- wire.py

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=50)
@given(_json)
def test_pack_and_unpack(data: Any) -> None:
    line = wire.pack(data)
    assert line.isascii() and not any(each.isspace() for each in line)
    assert wire.unpack(line) == wire.unpack(f"{line}\n".encode()) == data


def test_any_bytes_travel() -> None:
    content = bytes(range(256)) * 40
    assert remote.files.content(wire.unpack(wire.pack(remote.files.text(content)))) == content


def test_a_bomb_is_refused_before_it_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "LIMIT", 1000)
    asked: list[int] = []
    real = zlib.decompressobj

    class Reader:
        def __init__(self) -> None:
            self.inner = real()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.inner, name)

        def decompress(self, content: bytes, limit: int) -> bytes:
            found = self.inner.decompress(content, limit)
            asked.append(len(found))
            return found

    monkeypatch.setattr(zlib, "decompressobj", Reader)
    with pytest.raises(ValueError, match="too large"):
        wire.unpack(wire.pack("0" * 10_000_000))
    assert asked == [1000]
    assert wire.unpack(wire.pack("0" * 900)) == "0" * 900


def test_a_line_cut_short_is_refused() -> None:
    line = wire.pack({"readings": {"a": "b" * 50}})
    for length in range(len(line) - 1):
        with pytest.raises(ValueError):  # noqa: PT011 -- of several kinds
            wire.unpack(line[:length])


@pytest.mark.parametrize("line", ["", "Welcome!", "é", "=", "a", "eJwDAAAAAAE=", "[]", "\x00"])
def test_garbage_is_refused(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- of several kinds
        wire.unpack(line)


def test_what_is_nested_too_deep_is_refused() -> None:
    """`pack` makes no such thing; a host that is not itself any more may."""
    deep = base64.b64encode(zlib.compress(b"[" * 200_000))
    with pytest.raises(ValueError, match="recursion"):
        wire.unpack(deep)


# --- what a host says


class Terminal:
    """As much of pyinfra's host as `Channel.say` needs."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.state = SimpleNamespace(is_executing=True)

    def log(self, line: str) -> None:
        self.lines.append(line)


def test_nothing_of_a_host_reaches_the_terminal_with_control_characters() -> None:
    """A package's error, a path, a line of nginx: they may hold what clears the screen, or types for the operator."""
    terminal = Terminal()
    channel.Channel(cast(Host, terminal)).say(["npm: a (now \x1b[2J\x9b\r)", "Ключ ✓\tb"])
    assert terminal.lines == ["  npm: a (now ?[2J??)", "  Ключ ✓\tb"]
    assert str(BadInput("nginx: `\x1b]0;x\x07`")) == "nginx: `?]0;x?`"
    assert str(channel.HostUnfit("\x1b")) == "?"


def test_a_plan_does_not_depend_on_when_a_crashing_api_was_seen() -> None:
    """Else it changes with each start, and the question before a deploy is asked again and again."""
    running = {**STOPPED, "status": "silent", "stale": False, "shadowed": ["A"], "held_in": "/proc/7/environ"}
    ended = {**STOPPED, "status": "errored", "held_in": "/root/.pm2/dump.pm2", "ending": "then"}
    assert channel.stable({"pm2": running}) == channel.stable({"pm2": ended})
    alone = {"pm2": {**running, "held": ["A"]}}
    assert channel.stable(alone) != channel.stable({"pm2": ended}), "what pm2 alone has is refused in the plan"
    assert channel.stable({"pm2": {**ended, "status": "stopped"}}) != channel.stable({"pm2": ended}), "by a person"
    fine = {**running, "status": "online"}
    assert channel.stable({"pm2": fine}) != channel.stable({"pm2": ended})
    assert channel.stable({"pm2": fine}) == channel.stable({"pm2": {**fine, "held_in": "/proc/8/environ"}})
    assert channel.stable({"pm2": fine}) != channel.stable({"pm2": {**fine, "shadowed": []}})


def test_a_plan_does_not_depend_on_how_many_rows_postgresql_estimates() -> None:
    """But on a column of any name."""

    def of(rows: int, *columns: str) -> dict[str, Any]:
        return {"migration": {"relations": {"companies": {"rows": rows, "columns": dict.fromkeys(columns, "text")}}}}

    assert channel.stable(of(1, "status")) == channel.stable(of(2, "status"))
    assert channel.stable(of(1, "rows")) != channel.stable(of(1))
    assert channel.stable({"migration": {"error": "why"}}) == {"migration": {"error": "why"}}


class Sshd(paramiko.ServerInterface):
    """Takes any user. Its answer to a command comes when `answers` is set, and is whether the command is known."""

    def __init__(self) -> None:
        self.answers = threading.Event()

    def check_auth_none(self, *_: object, **__: object) -> int:
        return AUTH_SUCCESSFUL

    def check_channel_request(self, *_: object, **__: object) -> int:
        return OPEN_SUCCEEDED

    def check_channel_exec_request(self, *about: object, **__: object) -> bool:
        return self.answers.wait(20) and b"known" in about


@pytest.fixture
def sshd() -> Iterator[tuple[Sshd, SSHClient]]:
    ours, theirs = socket.socketpair()
    served, transport, server = paramiko.Transport(theirs), paramiko.Transport(ours), Sshd()
    try:
        served.add_server_key(paramiko.ECDSAKey.generate())
        served.start_server(threading.Event(), server)
        transport.start_client(timeout=60)
        transport.auth_none("root")
        yield server, cast(SSHClient, SimpleNamespace(get_transport=lambda: transport))
    finally:
        server.answers.set()
        transport.close()
        served.close()


def test_input_does_not_wait_until_the_command_has_begun(sshd: tuple[Sshd, SSHClient]) -> None:
    server, client = sshd
    stdin, stdout, _ = channel.begin(client, "known")  # returns though sshd has not answered
    stdin.write(b"line\n")
    stdin.flush()
    assert not stdout.channel.closed
    server.answers.set()


def test_a_command_that_sshd_refuses_gives_no_output(sshd: tuple[Sshd, SSHClient]) -> None:
    server, client = sshd
    _, stdout, stderr = channel.begin(client, "unknown")
    server.answers.set()
    assert (stdout.read(), stderr.read()) == (b"", b"")


class Client:
    """paramiko's, as far as `_Ahead` uses it: what was opened, in order."""

    def __init__(self) -> None:
        self.opened: list[tuple[Any, str]] = []
        self.refuses = False

    def exec_command(self, command: str) -> tuple[Any, str]:
        if self.refuses:
            raise ChannelException(1, "Administratively prohibited")
        self.opened.append((SimpleNamespace(channel=SimpleNamespace(closed=False)), command))
        return self.opened[-1]


OURS = channel.PYTHON.get_raw_value()


def ahead() -> tuple[Client, channel._Ahead]:
    client = Client()
    return client, channel._Ahead(cast(Any, client))


def test_our_next_program_is_started_while_one_runs() -> None:
    client, opener = ahead()

    first = opener.exec_command(OURS)
    gevent.sleep(0)  # while it runs
    assert client.opened == [first, (client.opened[1][0], OURS)]
    assert opener.exec_command(OURS) is client.opened[1]


def test_a_command_of_others_is_not_started_before_its_time() -> None:
    client, opener = ahead()

    opener.exec_command("touch /run/here")
    gevent.sleep(0)
    assert [command for _, command in client.opened] == ["touch /run/here"]


def test_a_program_under_other_arguments_is_another() -> None:
    _, opener = ahead()

    opener.exec_command(OURS)
    assert opener.exec_command(f"sudo {OURS}")[1] == f"sudo {OURS}"


def test_one_that_has_ended_meanwhile_is_started_anew() -> None:
    client, opener = ahead()

    opener.exec_command(OURS)
    gevent.sleep(0)
    client.opened[1][0].channel.closed = True
    assert opener.exec_command(OURS) is client.opened[2]


def test_where_the_next_one_is_refused_it_is_started_when_it_is_needed() -> None:
    client, opener = ahead()

    opener.exec_command(OURS)
    client.refuses = True
    gevent.sleep(0)
    client.refuses = False
    assert opener.exec_command(OURS) is client.opened[1]


def test_one_that_is_about_to_end_by_itself_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    client, opener = ahead()

    opener.exec_command(OURS)
    gevent.sleep(0)
    monkeypatch.setattr(channel, "FRESH", 0)
    assert opener.exec_command(OURS) is client.opened[2]


def test_one_that_gets_no_input_ends_by_itself(tmp_path: Path) -> None:
    """Its connection may be dead and not closed. Once something came it is read to its end, however slowly."""
    soon = OURS.replace(f"alarm({channel.UNUSED})", "alarm(1)")
    assert soon != OURS
    with subprocess.Popen(["sh", "-c", 'eval "$0"', soon], stdin=subprocess.PIPE) as unused:
        assert unused.wait(60) in (-signal.SIGALRM, 128 + signal.SIGALRM)

    whole = small(tmp_path / "F")
    with subprocess.Popen(["sh", "-c", 'eval "$0"', soon], stdin=subprocess.PIPE) as slow:
        assert slow.stdin
        slow.stdin.write(whole[:9])
        slow.stdin.flush()
        with pytest.raises(subprocess.TimeoutExpired):
            slow.wait(2)
        slow.stdin.write(whole[9:])
    assert (slow.returncode, (tmp_path / "F").read_text()) == (0, "ran")


class Input(io.BytesIO):
    """A session's standard input, over a connection that is gone."""

    channel = SimpleNamespace(get_transport=lambda: SimpleNamespace(is_active=bool))


class Fake:
    """pyinfra's host, as far as the end of a run uses it."""

    def __init__(self, **known: Any) -> None:
        vars(self).update(known)


BACK = {"put_back": ["/opt/.env"], "stuck": ["/opt/x: ENOSPC"]}


@pytest.mark.parametrize(
    ("result", "answer", "changed", "fails", "said"),
    [
        ("ok", {}, ["Secrets"], False, []),
        ("ok", {"put_back": [], "stuck": []}, ["Secrets"], False, []),  # it gave us up, and all was loaded by then
        ("ok", BACK, ["Secrets"], True, [remote.step.ENDED]),
        ("ok", None, ["Secrets"], True, [channel.UNHEARD]),
        ("ok", None, [], False, []),
        ("failed", BACK, ["Secrets"], False, []),  # it is one that failed already
    ],
)
def test_a_run_ends_well_only_where_the_host_says_so(
    result: str, answer: dict[str, list[str]] | None, changed: list[str], fails: bool, said: list[str]
) -> None:
    told: list[str] = []
    state = SimpleNamespace(failed_hosts=set(), is_executing=True)
    host: Any = Fake(name="host", state=state, log=told.append, log_styled=lambda text, **_: told.append(text))
    stdout = io.StringIO("" if answer is None else f"{wire.pack(answer)}\n")
    session = channel.Session(Input(), stdout, io.StringIO(), end=lambda: None)
    channel.Channel(host, deploy="1", changed=changed, session=session).end(result)
    back = ["  put back, because nothing had loaded it yet: /opt/.env", "  could not be put back: /opt/x: ENOSPC"]
    assert told == [*(back if answer == BACK else []), *said]
    assert (host in state.failed_hosts) == fails

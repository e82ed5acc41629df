"""What is typed wrong gets one line and exit code 2, before any host is connected to."""

from __future__ import annotations

import os
import pty
import select
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from subprocess import PIPE

import pytest

from first_contact import first_contact
from tests.rehearsal.story import PYINFRA, ROOT, copy_of_repository

ONE = "web = [('a.invalid', {'ssh_hostname': '127.0.0.1', 'ssh_port': 1})]\n"


def typed(*words: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    with copy_of_repository(ROOT, None, None) as own:
        (own / "my.py").write_text(ONE)
        (own / "half.py").write_text(f"{ONE}web = [(\n")
        return subprocess.run(
            [PYINFRA, *(word.replace("PROJECT", str(own)) for word in words)],
            cwd=folder or own,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )


WRONG = {
    "no terminal and no -y": (("my.py", "deploy.py"), "there is no terminal to ask on: add -y to apply, or --dry"),
    "a failed host would end with 0": (("my.py", "deploy.py", "-y", "--no-wait"), "leave out --no-wait"),
    "so for rollback": (("my.py", "rollback.py"), "there is no terminal to ask on"),
    "the order": (("deploy.py", "my.py", "-y"), "deploy.py is not an inventory; type: pyinfra INVENTORY deploy.py"),
    "two inventories": (("my.py", "inventory.py", "deploy.py", "-y"), "inventory.py deploys nothing"),
    "no such inventory": (("your.py", "deploy.py", "-y"), "there is no inventory your.py"),
    "a setting without --data": (
        ("my.py", "deploy.py", "--dry", "a=b"),
        "pass a setting with --data: --data a=b",
    ),
    "a setting without a value": (("my.py", "deploy.py", "-y", "--data", "verify"), "type: --data verify=VALUE"),
    "an inventory that is half edited": (("half.py", "deploy.py", "-y"), "half.py line 2 is not valid Python"),
    "no such host": (("your.invalid", "deploy.py", "-y"), "your.invalid has no host to work on"),
    "no such limit": (("my.py", "deploy.py", "-y", "--limit", "b.invalid"), "my.py has no host to work on"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_usage_is_one_line_and_2(what: str) -> None:
    words, line = WRONG[what]
    done = typed(*words)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert [each for each in done.stderr.splitlines() if "pyinfra error" in each and line in each], done.stderr


def test_what_is_run_on_the_host_is_no_file_of_ours() -> None:
    done = typed("@local", "exec", "--", "A=b", "echo", "/none/job.py")
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr


def test_our_own_lines_name_no_place_in_our_source() -> None:
    done = typed("@local", "deploy.py", "--dry", "--data", "api_prot=1")
    assert done.returncode == 1
    assert "--> pyinfra error: settings: there is no setting 'api_prot'" in done.stderr


@pytest.mark.parametrize("deploy", ["deploy.py", "rollback.py", "bootstrap.py"])
def test_from_another_folder(tmp_path: Path, deploy: str) -> None:
    """The order is told where config.py of this folder is not seen: so the modules were found."""
    done = typed("PROJECT/deploy.py", f"PROJECT/{deploy}", "-y", folder=tmp_path)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "is not an inventory" in done.stderr


@pytest.mark.parametrize("says", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_what_answers_is_no_sshd(says: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):  # it is closed
                while True:  # pyinfra tries once more
                    server.accept()[0].sendall(says)

        threading.Thread(target=answer, daemon=True).start()
        to = ("--data", "ssh_hostname=127.0.0.1", "--data", f"ssh_port={server.getsockname()[1]}")
        done = typed("a.invalid", "deploy.py", "--dry", *to)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "what answers there is not sshd" in done.stderr


def test_a_host_that_is_down_with_nobody_to_ask() -> None:
    """The other one is this machine: so pyinfra asks whether to go on."""
    done = typed("@local,a.invalid", "deploy.py", "--dry", "--data", "ssh_hostname=127.0.0.1", "--data", "ssh_port=1")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "no terminal to ask whether to continue: add -y" in done.stderr


@pytest.mark.parametrize("is_forbidden", [False, True])
def test_our_modules_are_compiled_once(tmp_path: Path, is_forbidden: bool) -> None:
    """Not at each run, unless the operator's own environment says so."""
    typed("my.py", "deploy.py", PYTHONPYCACHEPREFIX=str(tmp_path), PYTHONDONTWRITEBYTECODE="1" if is_forbidden else "")
    ours = {"terminal", "channel", "settings", "session", "dotenv"}
    compiled = ours & {file.name.partition(".")[0] for file in tmp_path.rglob("*.pyc")}
    assert compiled == (set() if is_forbidden else ours)


BEATS = """
from gevent import monkey; monkey.patch_all()
import gevent, terminal
gevent.spawn(lambda: [gevent.sleep(0.01), print("alive", flush=True)])
print(terminal._answer())
"""


def test_sessions_live_while_their_operator_reads_a_question() -> None:
    """pyinfra asks about a failed host; the others' sessions end where nothing comes for 30 s."""
    with subprocess.Popen([sys.executable, "-c", BEATS], cwd=ROOT, stdin=PIPE, stdout=PIPE, text=True) as asking:
        assert asking.stdin and asking.stdout
        assert select.select([asking.stdout], [], [], 30)[0], "nothing else ran"
        assert asking.communicate("yes\n")[0] == "alive\nyes\n"


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_no_color(variables: dict[str, str], coloured: bool) -> None:
    """On a terminal, where click colours what pyinfra says."""
    ours, theirs = pty.openpty()
    with copy_of_repository(ROOT, None, None) as folder:
        (folder / "my.py").write_text(ONE)
        command = [PYINFRA, "my.py", "deploy.py", "--dry"]
        environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | variables
        subprocess.run(command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    printed = b""
    try:
        while read := os.read(ours, 65536):
            printed += read
    except OSError:  # nobody writes any more
        os.close(ours)
    assert (b"\x1b[31m" in printed) == coloured


def test_an_encoding_without_our_signs(tmp_path: Path) -> None:
    (tmp_path / "say.py").write_text(
        "import terminal, pyinfra\npyinfra.is_cli = True\nterminal.attend()\nprint('✗ пять')"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "say.py"), "@local", "fact"],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "? ????\n"), done.stderr


@pytest.mark.parametrize(
    ("error", "advice", "command"),
    [
        ("SSH error (StrictPolicy: No host key for h found in known_hosts)", "compare the fingerprint", "ssh root@h"),
        ("Host key verification failed.", "compare the fingerprint", "ssh root@h"),
        (
            "Host key for h does not match.",
            "reinstalled. Only if you expected that, compare",
            "ssh-keygen -R h; ssh root@h",
        ),
        ("Authentication error (Authentication failed.)", "correct ssh_user or ssh_key", "ssh root@h"),
        ("root@h: Permission denied (publickey).", "correct ssh_user or ssh_key", "ssh root@h"),
    ],
)
def test_first_contact(error: str, advice: str, command: str) -> None:
    lines = first_contact(error, "ssh root@h", "h")
    assert advice in lines[0] and lines[1:] == [command]


def test_a_changed_key_is_removed_where_openssh_keeps_it() -> None:
    """By its port too, and in the file that the inventory names."""
    error = "Host key for h does not match."
    assert first_contact(error, "ssh h", "h", 2222, "/my hosts")[1] == "ssh-keygen -f '/my hosts' -R '[h]:2222'; ssh h"
    assert first_contact(error, "ssh h", "h", 22)[1] == "ssh-keygen -R h; ssh h"


def test_what_is_no_matter_of_keys_gets_no_such_advice() -> None:
    assert first_contact("Could not connect (timed out)", "ssh root@h", "h") == []

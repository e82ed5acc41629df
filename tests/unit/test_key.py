"""A key that can only converge: what its entry on the host starts, and fifty kinds of what it refuses."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from zlib import compress

import pytest
from pyinfra.connectors.util import make_unix_command

import channel
import remote.look
import remote.step
from facts import look
from remote import wire
from tests.rehearsal.story import ROOT

ENTRY = ROOT / "files/usr/local/sbin/ai-admin-converge"
COMMAND = make_unix_command(channel.PYTHON).get_raw_value()
LOOK = channel.message(remote.look.show, questions={})
MODULES, CALL = LOOK.split()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("key") / "known"
    file.write_text(channel.digests())
    return file


def entry(known: Path, command: str | None, line: bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    """As sshd starts it; the folder is another's, with a module that must not be found."""
    typed = {} if command is None else {"SSH_ORIGINAL_COMMAND": command}
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", str(ENTRY), str(known)],
        input=line,
        env={"PATH": os.environ["PATH"], **typed, **environment},
        cwd=known.parent,
        capture_output=True,
        timeout=60,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def packed(data: object) -> str:
    return wire.pack(data)


def raw(data: bytes) -> str:
    return b64encode(data).decode()


def call(function: object, arguments: object) -> str:
    return f"{MODULES} {packed([function, arguments])}\n"


def step(function: object) -> str:
    return call("remote.step.step", {"function": function, "deploy": "x", "arguments": {}})


def with_module(change: Callable[[str], str]) -> str:
    modules = wire.unpack(MODULES)
    modules["remote.look"] = change(modules["remote.look"])
    return f"{packed(modules)} {CALL}\n"


OTHER_COMMANDS = {
    "none": None,
    "an empty one": "",
    "a shell": "sh",
    "a shell's command": "sh -c id",
    "another Python": "python3 -c 'import os; os.system(\"id\")'",
    "ours and another": f"{COMMAND}; id",
    "another and ours": f"id; {COMMAND}",
    "ours in the background": f"{COMMAND} & id",
    "ours with a blank before it": f" {COMMAND}",
    "ours with a line feed": f"{COMMAND}\n",
    "ours without -I": COMMAND.replace("python3 -I", "python3"),
    "ours with another interpreter": COMMAND.replace("python3", "perl", 1),
    "ours with sudo": f"sudo -n {COMMAND}",
    "ours with a variable": f"PYTHONPATH=/tmp {COMMAND}",
    "a part of ours": COMMAND[:-40],
    "ours with a comment": COMMAND.replace("# ai-admin-deploy", "# ai-admin-deplOy"),
    "scp": "scp -t /etc/cron.d",
    "sftp": "internal-sftp",
    "rsync": "rsync --server . /etc",
    "verification's agent": "sh -c \"python3 -I -S -c 'import sys; exec(sys.stdin.buffer.read(5))'\"",
    "letters that look the same": COMMAND.replace("c", "\u0441", 1),
    "what is no UTF-8": COMMAND + "\udcff",
}
OTHER_INPUT = {
    "an empty line": "\n",
    "blanks": "   \n",
    "one word": f"{MODULES}\n",
    "three words": f"{MODULES} {CALL} {CALL}\n",
    "two blanks between": f"{MODULES}  {CALL}\n",
    "a tab between": f"{MODULES}\t{CALL}\n",
    "a carriage return": f"{MODULES} {CALL}\r\n",
    "no base64": f"{MODULES} %%%\n",
    "base64 with more behind it": f"{MODULES} {CALL}!\n",
    "no zlib": f"{MODULES} {raw(b'x')}\n",
    "zlib that is cut": f"{MODULES} {raw(compress(b'[]')[:-3])}\n",
    "zlib with more behind it": f"{MODULES} {raw(compress(json.dumps(['remote.look.show', {}]).encode()) + b'x')}\n",
    "a bomb": f"{MODULES} {raw(compress(bytes(100_000_000)))}\n",
    "no JSON": f"{MODULES} {raw(compress(b'{'))}\n",
    "JSON too deep": f"{MODULES} {raw(compress(b'[' * 200_000))}\n",
    "no call": f"{MODULES} {packed({})}\n",
    "a call of three": f"{MODULES} {packed(['remote.look.show', {'questions': {}}, 1])}\n",
    "a function that is none": call(["remote.look.show"], {"questions": {}}),
    "arguments that are none": call("remote.look.show", ["questions"]),
    "no questions": call("remote.look.show", {}),
    "another version": with_module(lambda text: text + "\n"),
    "a module that does more": with_module(lambda text: text + "import os; os.system('id')\n"),
    "no modules": f"{packed({})} {CALL}\n",
    "the call first": f"{CALL} {MODULES}\n",
    "Python's own": call("os.system", {"command": "id"}),
    "a process": call("remote.processes.run", {}),
    "a file": call("remote.files.read", {"path": "/etc/shadow"}),
    "a step without its lock": call("remote.npm.install", {}),
    "a look at any file": call("remote.look.show", {"questions": {"files": {"path": "/etc/shadow"}}}),
    "a look at one of ours and another": call("remote.look.show", {"questions": {"pm2": {}, "lock": {}}}),
    "a look from elsewhere": call("remote.session.session", {"questions": {"../os": {}}}),
    "a process as a step": step("remote.processes.run"),
    "a file as a step": step("remote.files.write_whole"),
    "Python's own as a step": step("os.system"),
    "a step with its module left out": step("npm.install"),
    "a step twice removed": step("remote.remote.npm.install"),
    "a step that is a list": step(["remote.npm.install"]),
}


def test_there_are_fifty_kinds() -> None:
    assert len(OTHER_COMMANDS) + len(OTHER_INPUT) >= 50


@pytest.mark.parametrize("kind", OTHER_COMMANDS)
def test_another_command_is_refused(known: Path, kind: str) -> None:
    done = entry(known, OTHER_COMMANDS[kind], LOOK.encode())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("this key can only converge: this is not one of its programs"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("kind", OTHER_INPUT)
def test_other_input_is_refused(known: Path, kind: str) -> None:
    done = entry(known, COMMAND, OTHER_INPUT[kind].encode())
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("this key can only converge: ") and done.stderr.count("\n") == 1, done.stderr


def test_what_was_cut_does_nothing(known: Path) -> None:
    done = entry(known, COMMAND, LOOK.encode()[:-1])
    assert (done.returncode, done.stdout, done.stderr) == (75, "", "the connection was cut: nothing was done\n")


@pytest.mark.parametrize(("mode", "owner"), [(0o664, 0), (0o646, 0), (0o644, 65534)])
def test_a_list_that_others_can_write_is_none(known: Path, tmp_path: Path, mode: int, owner: int) -> None:
    own = tmp_path / "known"
    own.write_text(known.read_text())
    own.chmod(mode)
    os.chown(own, owner, -1)
    assert "can be written by others than root" in entry(own, COMMAND, LOOK.encode()).stderr


def test_without_a_list_nothing_starts(tmp_path: Path) -> None:
    assert "No such file" in entry(tmp_path / "none", COMMAND, LOOK.encode()).stderr
    (tmp_path / "empty").write_text("\n")
    assert entry(tmp_path / "empty", COMMAND, LOOK.encode()).returncode == 1


def test_our_own_runs_without_what_the_client_sent_along(known: Path) -> None:
    watched = f"import os, runpy, sys; sys.argv[1:] = sys.argv[2:]; runpy.run_path({str(ENTRY)!r}); print(*os.environ)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "utf8", "-c", watched, "", str(known)],
        input=LOOK,
        env={"SSH_ORIGINAL_COMMAND": COMMAND, "HOME": "/root", "LC_ALL": "C", "PGHOST": "elsewhere"},
        capture_output=True,
        text=True,
    )
    readings, names = done.stdout.splitlines()
    assert wire.unpack(readings) == {"readings": {}}, done.stderr
    assert {*names.split()} == {"HOME", "PATH", "LANG"}


def test_its_lists_are_those_of_the_bundle() -> None:
    """Each step of an operation and each noun of a look, and no other."""
    tree = ast.parse(ENTRY.read_text(encoding="utf-8"))
    sets = {
        target.id: {each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)}
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(target := node.targets[0], ast.Name)
    }
    used, nouns = set(), set()
    for file in (ROOT / "operations").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and node.args and ast.unparse(node.func) == "Step":
                used.add(ast.unparse(node.args[0]))
    for file in (*(ROOT / "operations").glob("*.py"), Path(look.__file__)):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr == "read" and ast.unparse(node).startswith("remote."):
                nouns.add(ast.unparse(node).split(".")[1])
    assert (sets["STEPS"], sets["NOUNS"], {*remote.look.NOUNS}) == (used, nouns, nouns)

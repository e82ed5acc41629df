"""bin/verify: what is typed wrong, files of the caller's folder, and a host that lets us in without root."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.rehearsal.story import ROOT
from tests.verify.backend import AGENT, LAUNCH

NOWHERE = "web = [('a.invalid', {'ssh_hostname': '127.0.0.1', 'ssh_port': 1, 'ssh_user': 'op'})]\n"


def verify(folder: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", **more}
    return subprocess.run(
        ["sh", ROOT / "bin/verify", *words], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_files_are_of_the_folder_that_it_is_called_from(tmp_path: Path) -> None:
    (tmp_path / "my.py").write_text(NOWHERE)
    done = verify(tmp_path, "my.py", "--json", "out.json")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    assert "a.invalid cannot be reached over ssh" in done.stderr
    assert json.loads((tmp_path / "out.json").read_text())[0]["host"] == "a.invalid"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("my.py", "--html", "no/out.html"), "argument --html: there is no folder FOLDER/no"),
        (("my.py", "--html", "."), "argument --html: FOLDER cannot be written"),
        (("your.py",), "argument inventory: there is no inventory your.py"),
    ],
)
def test_what_is_not_there_is_refused_before_the_checks(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    (tmp_path / "my.py").write_text(NOWHERE)
    done = verify(tmp_path, *words)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"verify: {said.replace('FOLDER', str(tmp_path))}")


def test_a_changed_host_key_is_no_unknown_one(tmp_path: Path) -> None:
    """ssh's last line is the same for both. And no check makes a traceback of it: that took 20 s of CPU."""
    (tmp_path / "my.py").write_text(NOWHERE)
    said = "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed."
    (tmp_path / "ssh").write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    before = os.times().children_user
    done = verify(tmp_path, "my.py", PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert done.returncode == 1
    assert "-R '[127.0.0.1]:1'; ssh " in done.stderr and "does not know the server" not in done.stderr
    assert os.times().children_user - before < 15, "1.2 s are usual"


def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    """The inventory says when it is read: the handler is there by then."""
    (tmp_path / "my.py").write_text(f"import time\nopen({str(tmp_path / 'here')!r}, 'w').close()\ntime.sleep(60)\n")
    os.mkfifo(tmp_path / "here")
    command = [sys.executable, "-m", "tests.verify", str(tmp_path / "my.py")]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, process_group=0) as running:
        (tmp_path / "here").read_text()
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        assert running.wait(60) == 130
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
        assert running.stderr
        assert running.stderr.read() == "\nverify: stopped; nothing was changed\n"


def test_who_is_not_root_is_told_so(tmp_path: Path) -> None:
    agent = AGENT.read_bytes()
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-I", "-S", "-c", LAUNCH],
        input=f"{len(agent)}\n".encode() + agent + b"{}\n",
        cwd=tmp_path.anchor,
        capture_output=True,
    )
    assert done.stderr.decode() == "root is needed: connect as root, or set _sudo in the inventory\n"

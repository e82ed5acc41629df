"""The host's folders, in a temporary one; and a test's own child processes, which end with it."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE

import pytest

import channel
from remote import backups, lock, nginx, pm2, rollback, services
from remote.readings import Api
from tests.unit.conftest import ROOT

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture(autouse=True)
def var(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where these tests keep what the host has below /var and /run."""
    monkeypatch.setattr(services, "STATE", f"{tmp_path}/var/state")
    monkeypatch.setattr(backups, "BACKUPS", f"{tmp_path}/var/backups")
    monkeypatch.setattr(lock, "FOLDER", f"{tmp_path}/var/run")
    return tmp_path / "var"


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nginx's folder, empty; nginx does not run, and takes what is there."""
    etc = tmp_path / "etc"
    etc.mkdir()
    monkeypatch.setattr(nginx, "ETC", str(etc))
    monkeypatch.setattr(nginx, "complaint", str)
    monkeypatch.setattr(nginx, "workers", list)
    monkeypatch.setattr(nginx, "reload", lambda *_, **__: None)
    return etc


def roll_back() -> None:
    """Deploy 2 undoes deploy 1, which changed files of nginx alone."""
    api: Api = {"app": "api", "app_dir": "/app", "port": 1, "packages": [], "start_timeout": 1, "settle_time": 0}
    rollback.roll_back("2", undo="1", api=api, keys=[])


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """A test's own processes: no other pm2 of this machine is seen, whoever's."""
    found: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(pm2, "is_of_this_host", lambda pid: int(pid) in [each.pid for each in found])
    monkeypatch.setattr(pm2, "BOOT", f"{tmp_path}/boot")
    pm2.owner.cache_clear()
    return found


@pytest.fixture(autouse=True)
def start(started: list[subprocess.Popen[bytes]]) -> Iterator[Start]:
    """Start a program, with pipes and in a session of its own; killed at the test's end."""

    def begin(*command: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        started.append(
            subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=env, cwd=ROOT, start_new_session=True)
        )
        while started[-1].poll() is None and not Path(f"/proc/{started[-1].pid}/cmdline").read_bytes():
            time.sleep(0.001)  # Popen returns a moment before /proc knows the new program
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        with process:  # closes its pipes and waits
            pass


def on_host(sent: str | bytes, path: str | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the channel's command as a host's shell does, with this standard input; `path` has the python3."""
    stdin = sent.encode() if isinstance(sent, str) else sent
    env = {"PATH": f"{path or Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = channel.PYTHON.get_raw_value()
    return subprocess.run(["sh", "-c", command], input=stdin, capture_output=True, env=env, cwd=cwd)


def free_port() -> int:
    """Below the ports that Linux gives to clients: connecting to one of those may reach oneself."""
    while True:
        port = random.randrange(20_000, 32_000)  # noqa: S311 -- no secret
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def names(folder: Path) -> list[str]:
    """What is in the folder, sorted."""
    return sorted(path.name for path in folder.iterdir())

"""A step completes, or says why not; whatever becomes of the client."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from remote import lock
from remote.lock import held
from tests.unit.remote.conftest import Start

# argv: the lock's folder, WAIT, a function of the module `change`, its arguments as JSON
DRIVER = '''import json, pathlib, signal, sys, time, types
from remote import Failure, lock, step
lock.FOLDER, step.WAIT = sys.argv[1], float(sys.argv[2])

def change(deploy, *, file):
    """Says that it has begun, waits for a word, writes the file."""
    pathlib.Path(file + ".begun").touch()
    while not pathlib.Path(file + ".go").exists():
        time.sleep(0.002)
    pathlib.Path(file).write_text(deploy)
    return {"seconds": 1.5}

def nothing(deploy):
    return None

def fails(deploy, *, why):
    raise Failure(why)

def full(deploy):
    open("/nowhere/F")

def broken(deploy):
    {}["key"]

def ignored(deploy):
    return {"ignored": [number for number in range(1, 32) if signal.getsignal(number) == signal.SIG_IGN]}

sys.modules["change"] = types.SimpleNamespace(**globals())
step.step(function=f"change.{sys.argv[3]}", deploy="20260101T000000Z", arguments=json.loads(sys.argv[4]))
'''


@pytest.fixture(autouse=True)
def session() -> Iterator[int]:
    """That of the steps' deploy; it lasts as long as this file is open."""
    with held(lock.DEPLOY, 0) as mine:
        assert mine is not None
        os.write(mine, b'{"deploy": "20260101T000000Z"}')
        yield mine


def run(start: Start, function: str, wait: float = 60, **arguments: Any) -> subprocess.Popen[bytes]:
    return start(sys.executable, "-S", "-c", DRIVER, lock.FOLDER, str(wait), function, json.dumps(arguments))


def outcome(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    stdout, stderr = process.communicate(timeout=60)
    return process.returncode, stdout.decode(), stderr.decode()


def wait_for(path: str) -> None:
    deadline = time.monotonic() + 60
    while not Path(path).exists():
        assert time.monotonic() < deadline, f"{path} never came"
        time.sleep(0.005)


def test_it_prints_what_the_function_returns(start: Start, tmp_path: Path) -> None:
    (tmp_path / "F.go").touch()
    assert outcome(run(start, "change", file=f"{tmp_path}/F")) == (0, '{"seconds": 1.5}\n', "")
    assert (tmp_path / "F").read_text() == "20260101T000000Z"


def test_what_returns_nothing(start: Start) -> None:
    assert outcome(run(start, "nothing")) == (0, "{}\n", "")


def test_a_failure_is_one_line_on_stderr(start: Start) -> None:
    assert outcome(run(start, "fails", why="Ключ is missing; run again")) == (1, "", "Ключ is missing; run again\n")


def test_an_error_of_the_system_is_its_reason(start: Start) -> None:
    assert outcome(run(start, "full")) == (1, "", "ENOENT: No such file or directory, /nowhere/F\n")


def test_a_defect_is_one_line_with_its_place(start: Start) -> None:
    status, stdout, stderr = outcome(run(start, "broken"))
    assert (status, stdout) == (1, "")
    assert re.fullmatch(r"KeyError: 'key' \(.+ line \d+\)\n", stderr)


def test_arguments_that_do_not_fit(start: Start) -> None:
    status, _, stderr = outcome(run(start, "nothing", file="F"))
    assert status == 1
    assert "unexpected keyword argument 'file'" in stderr


def test_it_ignores_what_a_lost_client_brings(start: Start) -> None:
    ignored = json.loads(outcome(run(start, "ignored"))[1])["ignored"]
    assert {signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE} <= {*ignored}


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_it_completes_though_the_client_is_gone(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = run(start, "change", file=f"{tmp_path}/F")
    wait_for(f"{tmp_path}/F.begun")
    process.send_signal(number)
    assert process.stdout and process.stderr and process.stdin
    for pipe in (process.stdin, process.stdout, process.stderr):
        pipe.close()
    (tmp_path / "F.go").touch()
    assert process.wait(60) in (0, 120)  # 120: Python's own, as nobody reads its output any more
    assert (tmp_path / "F").read_text() == "20260101T000000Z"


def test_one_at_a_time(start: Start, tmp_path: Path) -> None:
    first = run(start, "change", file=f"{tmp_path}/F")
    wait_for(f"{tmp_path}/F.begun")
    late = "a step of an earlier deploy still runs on the host; run again in a minute\n"
    assert outcome(run(start, "change", 0, file=f"{tmp_path}/late")) == (1, "", late)

    second = run(start, "change", file=f"{tmp_path}/G")
    (tmp_path / "G.go").touch()
    time.sleep(0.1)
    assert not (tmp_path / "G.begun").exists()
    (tmp_path / "F.go").touch()
    assert outcome(first)[0] == outcome(second)[0] == 0
    assert (tmp_path / "G").exists()
    assert not (tmp_path / "late.begun").exists()


@pytest.mark.parametrize("last", ["20260101T000000Z", "20260101T000001Z", ""])
def test_a_step_without_its_session_does_nothing(start: Start, tmp_path: Path, session: int, last: str) -> None:
    """It was on its way when the client died: nobody would put back what it wrote."""
    if last == "20260101T000000Z":
        fcntl.flock(session, fcntl.LOCK_UN)
    else:
        os.truncate(session, 0)
        os.pwrite(session, json.dumps({"deploy": last} if last else {}).encode(), 0)
    late = "the host ended this deploy because it no longer heard from this machine; run again\n"
    assert outcome(run(start, "change", file=f"{tmp_path}/F")) == (1, "", late)
    assert not (tmp_path / "F.begun").exists()


def test_the_lock_is_let_go_after_a_failure(start: Start) -> None:
    outcome(run(start, "fails", why="no"))
    with held(lock.STEP, 0) as mine:
        assert mine is not None

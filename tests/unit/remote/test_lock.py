"""One at a time; and whoever holds the lock, it ends with the process."""

from __future__ import annotations

import os
import stat
import sys
import threading
import time
from pathlib import Path

import pytest

from remote import lock, processes
from remote.lock import held
from tests.unit.remote.conftest import Start

HOLDER = """import sys, time
from remote import lock
lock.FOLDER = sys.argv[1]
with lock.held("L", 0) as mine:
    print(mine is not None, flush=True)
    sys.stdin.read()
"""


def is_free(name: str = "L", wait: float = 0) -> bool:
    with held(name, wait) as mine:
        return mine is not None


def test_one_at_a_time() -> None:
    with held("L", 0) as mine:
        assert mine is not None
        assert not is_free()
        assert is_free("another")
    assert is_free()


def test_a_lock_that_was_not_given_is_not_let_go() -> None:
    with held("L", 0):
        assert [is_free(), is_free(), is_free()] == [False] * 3


def test_an_exception_lets_go() -> None:
    def fails() -> None:
        with held("L", 0):
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert is_free()


def test_it_waits() -> None:
    begun = time.monotonic()
    with held("L", 0):
        assert not is_free(wait=0.1)
    assert time.monotonic() - begun >= 0.1


def test_it_waits_no_longer_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "AGAIN", 0.005)
    taken, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with held("L", 0):
            taken.set()
            let_go.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(60)
    threading.Timer(0.05, let_go.set).start()
    begun = time.monotonic()
    assert is_free(wait=600)
    assert time.monotonic() - begun < 300
    holder.join()


def test_the_holders_death_lets_go(start: Start) -> None:
    holder = start(sys.executable, "-S", "-c", HOLDER, lock.FOLDER)
    assert holder.stdout
    assert holder.stdout.readline() == b"True\n"
    assert not is_free()
    holder.kill()
    holder.wait()
    assert is_free()


def test_no_child_inherits_it(start: Start) -> None:
    with held("L", 0):
        child = start("sleep", "60")
        processes.run("sh", "-c", "sleep 60 >&- 2>&- <&- &")  # and one that goes on after its parent
    assert is_free()
    assert child.poll() is None


def test_a_child_of_another_holder_does_not_keep_it(start: Start) -> None:
    holder = start(sys.executable, "-S", "-c", HOLDER.replace("sys.stdin.read()", WITH_A_CHILD), lock.FOLDER)
    assert holder.stdout
    assert holder.stdout.readline() == b"True\n"
    child = int(holder.stdout.readline())
    holder.kill()
    holder.wait()
    assert processes.identify(child)
    assert is_free()
    os.kill(child, 9)


WITH_A_CHILD = """import subprocess
    print(subprocess.Popen(["sleep", "60"], start_new_session=True).pid, flush=True)
    sys.stdin.read()"""


def test_the_folder_is_for_root_alone() -> None:
    old = os.umask(0)
    try:
        assert is_free()
    finally:
        os.umask(old)
    assert stat.S_IMODE(Path(lock.FOLDER).stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(lock.FOLDER, "L").stat().st_mode) == 0o600

"""Guests wait until they are let in, and are served then; what the API had begun is not given to it once more."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from remote import Failure, waiting_room
from remote.waiting_room import Room, open_room
from tests.rehearsal.host import until
from tests.unit.conftest import ROOT
from tests.unit.remote.conftest import free_port


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The room's socket."""
    monkeypatch.setattr(waiting_room, "FOLDER", str(tmp_path / "room"))
    monkeypatch.setattr(waiting_room, "SOCKET", str(tmp_path / "room/api"))
    monkeypatch.setattr(waiting_room, "SIGN", str(tmp_path / "room/sign"))
    return tmp_path / "room/api"


def is_refused(path: Path) -> bool:
    try:
        connect(path).close()
    except ConnectionRefusedError:
        return True
    return False


@contextmanager
def api(port: int) -> Iterator[list[bytes]]:
    """Answers each guest with what it said up to its first empty line; the list is of all that was said."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", port), backlog=64) as server:

        def serve(guest: socket.socket) -> None:
            with guest:
                said = b""
                while not said.endswith(b"\r\n\r\n"):
                    said += guest.recv(65536)
                heard.append(said)
                guest.sendall(b"api:" + said)

        def receive() -> None:
            while True:
                try:
                    guest = server.accept()[0]
                except OSError:
                    return
                threading.Thread(target=serve, args=(guest,), daemon=True).start()

        thread = threading.Thread(target=receive)
        thread.start()
        yield heard
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def connect(path: Path) -> socket.socket:
    guest = socket.socket(socket.AF_UNIX)
    guest.settimeout(60)
    guest.connect(str(path))
    return guest


def ask(path: Path, said: bytes) -> bytes:
    """As nginx does: it waits for the answer with its own side open."""
    with connect(path) as guest:
        guest.sendall(said)
        return b"".join(iter(lambda: guest.recv(65536), b""))


GET, POST = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n", b"POST / HTTP/1.0\r\nUpgrade-Insecure-Requests: 1\r\n\r\n"


def test_a_guest_waits_until_it_is_let_in(path: Path) -> None:
    port = free_port()
    with ThreadPoolExecutor() as pool, api(port), open_room(port, 60) as room:
        answers = [pool.submit(ask, path, each) for each in (GET, POST)]
        time.sleep(0.1)
        assert not any(answer.done() for answer in answers), "though the API's port is open"
        room.let_in()
        assert [answer.result(60) for answer in answers] == [b"api:" + GET, b"api:" + POST]


def test_the_sign_is_there_only_while_it_holds(path: Path) -> None:
    """nginx looks at what it points to; nobody but the owner of its folder can put another in its place, or another
    socket."""
    sign = path.with_name("sign")
    with api(free_port()), open_room(free_port(), 60) as room:
        assert sign.exists()
        assert path.stat().st_mode & 0o777 == 0o666 and path.parent.stat().st_mode & 0o777 == 0o711
        room.let_in()
        assert not sign.is_symlink()
        room.let_in()
        room.hold()
        assert sign.exists()
        room.hold()
    assert list(path.parent.iterdir()) == []


HOLDS = """
import os, sys
from remote import waiting_room
waiting_room.FOLDER, waiting_room.SOCKET, waiting_room.SIGN = sys.argv[1:]
with waiting_room.open_room(1, 60):
    os.kill(os.getpid(), 9)
"""


def test_a_deploy_that_was_killed_holds_nobody_and_is_no_obstacle(path: Path) -> None:
    folder, sign = path.parent, path.with_name("sign")
    killed = subprocess.run([sys.executable, "-c", HOLDS, folder, path, sign], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    until(60, "the room to end", lambda: not sign.is_symlink() and not path.exists())
    with open_room(free_port(), 60):
        assert sign.exists()
        connect(path).close()


def test_a_room_that_was_killed_holds_nobody_and_is_no_obstacle(path: Path) -> None:
    sign = path.with_name("sign")
    with open_room(free_port(), 60) as room:
        os.kill(int(sign.readlink().parts[2]), signal.SIGKILL)
        until(60, "its end", lambda: is_refused(path))
        room.hold()
        assert not room.let_in()
    assert sign.is_symlink() and not sign.exists(), "it points to a thread that is gone"
    with open_room(free_port(), 60):
        assert sign.exists()
        connect(path).close()


def test_many_guests_and_long_answers(path: Path) -> None:
    port = free_port()
    said = [bytes([number + 65]) * 300_000 + b"\r\n\r\n" for number in range(20)]
    with ThreadPoolExecutor(20) as pool, api(port), open_room(port, 60) as room:
        answers = [pool.submit(ask, path, each) for each in said]
        time.sleep(0.1)
        room.let_in()
        assert [answer.result(60) for answer in answers] == [b"api:" + each for each in said]


def test_more_guests_than_a_session_may_have_open_files(path: Path) -> None:
    """sshd's sessions begin with 1024, and each guest takes two."""
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    port, open_now = free_port(), len([*Path("/proc/self/fd").iterdir()])
    with ThreadPoolExecutor(60) as pool, api(port):
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_now + 40, most))
        try:
            room = open_room(port, 60)
            door = room.__enter__()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
        answers = [pool.submit(ask, path, GET) for _ in range(60)]
        until(60, "all to wait", lambda: len(waiting(path)) >= 60)
        door.let_in()
        assert [answer.result(60) for answer in answers] == [b"api:" + GET] * 60
        room.__exit__(None, None, None)


def waiting(path: Path) -> list[Path]:
    """What the room's process has open."""
    return [*Path(f"/proc/{path.with_name('sign').readlink().parts[2]}/fd").iterdir()]


def test_a_websocket_is_sent_back_to_nginx(path: Path) -> None:
    """It would else live no longer than the room."""
    port = free_port()
    with ThreadPoolExecutor() as pool, api(port) as heard, open_room(port, 60) as room:
        answer = pool.submit(ask, path, b"GET /socket.io/?EIO=4 HTTP/1.1\r\nHost: x\r\nupgrade: websocket\r\n\r\n")
        time.sleep(0.05)
        room.let_in()
        assert b"\r\nX-Accel-Redirect: /socket.io/?EIO=4\r\n" in answer.result(60)
        assert heard == []


def test_those_that_were_let_in_get_their_answer_after_it_closes(path: Path) -> None:
    port = free_port()
    with api(port):
        with open_room(port, 60) as room:
            guest = connect(path)
            guest.sendall(GET.removesuffix(b"\r\n"))
            room.let_in()
            end = threading.Timer(0.1, guest.sendall, [b"\r\n"])
            end.start()
        end.join()
        with guest:
            assert b"".join(iter(lambda: guest.recv(65536), b"")) == b"api:" + GET


def test_an_answer_that_takes_long_outlives_the_step(path: Path) -> None:
    """Whoever waits for the step, over its output, does not wait for it; and the step's locks are not held."""
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as server, tempfile.TemporaryFile() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with open_room(port, 60) as room:
            pid = path.with_name("sign").readlink().parts[2]
            guest = connect(path)
            guest.sendall(GET)
            room.let_in()
            asked = server.accept()[0]
            assert asked.recv(65536) == GET
        files = [file.stat().st_ino for file in Path(f"/proc/{pid}/fd").iterdir()]
        assert files and os.fstat(lock.fileno()).st_ino not in files
        assert Path(f"/proc/{pid}/fd/1").readlink() == Path(os.devnull)
        with asked:
            asked.sendall(b"late")
        with guest:
            assert b"".join(iter(lambda: guest.recv(65536), b"")) == b"late"


def test_where_there_can_be_none_the_step_says_why(path: Path) -> None:
    path.parent.write_text("a file")
    with pytest.raises(Failure, match=r"requests cannot wait while the API restarts: .*room"), open_room(1, 1):
        pass


def test_a_guest_waits_no_longer_than_it_may(path: Path) -> None:
    with open_room(free_port(), 0.05):
        begun = time.monotonic()
        with connect(path) as guest:
            assert guest.recv(1) == b""
        assert time.monotonic() - begun >= 0.05


def test_nothing_is_executed_for_a_guest_that_has_left(path: Path) -> None:
    """nginx has told its client that it failed."""
    port = free_port()
    with api(port) as heard:
        room = Room(port, 60)
        room.hold()
        with connect(path) as guest:
            guest.sendall(POST)
            while not room.guests:
                time.sleep(0.01)
        room.let_in()
        room.guests[0].join(60)
        room.close()
        assert not room.guests[0].is_alive() and heard == []


def test_an_api_that_ends_without_an_answer_is_not_asked_twice(path: Path) -> None:
    """It started, accepted, and crashed. The connection ends, and nginx says 502."""
    port = free_port()
    with ThreadPoolExecutor() as pool, socket.create_server(("127.0.0.1", port)) as server, open_room(port, 60) as room:
        answer = pool.submit(ask, path, GET)
        time.sleep(0.05)
        room.let_in()
        accepted = server.accept()[0]
        accepted.recv(4)
        linger = struct.pack("ii", 1, 0)  # close() sends a reset
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        accepted.close()
        assert answer.result(60) == b""
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_what_fails_in_it_comes_out(path: Path) -> None:
    with pytest.raises(OSError, match="of the block itself"), open_room(free_port(), 60):
        raise OSError("of the block itself")
    assert not path.exists()


def test_a_guest_still_waiting_when_it_closes_keeps_nobody(path: Path) -> None:
    begun = time.monotonic()
    with open_room(free_port(), 60), connect(path) as guest:
        guest.sendall(GET)
    assert time.monotonic() - begun < 30

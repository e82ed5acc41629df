"""Guests wait while the API's port is closed, and are served when it opens."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from remote import waiting_room
from remote.waiting_room import open_room
from tests.unit.remote.conftest import free_port


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_room, "AGAIN", 0.005)
    monkeypatch.setattr(waiting_room, "LEAVE", 0.5)


@contextmanager
def api(port: int) -> Iterator[None]:
    """Answers each guest with what it said, when it has said all."""
    with socket.create_server(("127.0.0.1", port), backlog=64) as server:

        def serve(guest: socket.socket) -> None:
            with guest:
                said = b"".join(iter(lambda: guest.recv(65536), b""))
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
        yield
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def ask(port: int, said: bytes = b"") -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as guest:
        guest.sendall(said)
        guest.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: guest.recv(65536), b""))


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def test_a_guest_waits_until_the_api_opens() -> None:
    room, port = free_port(), free_port()
    with ThreadPoolExecutor() as pool, open_room(room, port, 5):
        answer = pool.submit(ask, room, b"GET /")
        time.sleep(0.05)
        assert not answer.done()
        with api(port):
            assert answer.result(5) == b"api:GET /"
            assert ask(room, b"later") == b"api:later"


def test_many_guests_and_long_answers() -> None:
    room, port = free_port(), free_port()
    said = [bytes([number]) * 300_000 for number in range(20)]
    with ThreadPoolExecutor(20) as pool, open_room(room, port, 5):
        answers = [pool.submit(ask, room, each) for each in said]
        time.sleep(0.05)
        with api(port):
            assert [answer.result(10) for answer in answers] == [b"api:" + each for each in said]


def test_those_that_were_let_in_get_their_answer_after_it_closes() -> None:
    room, port = free_port(), free_port()
    with api(port):
        with open_room(room, port, 5):
            guest = socket.create_connection(("127.0.0.1", room), timeout=5)
            guest.sendall(b"GET")
            time.sleep(0.05)
            end = threading.Timer(0.05, guest.shutdown, [socket.SHUT_WR])
            end.start()
        end.join()
        with guest:
            assert b"".join(iter(lambda: guest.recv(65536), b"")) == b"api:GET"


def test_a_guest_waits_no_longer_than_it_may() -> None:
    room, port = free_port(), free_port()
    with open_room(room, port, 0.05):
        begun = time.monotonic()
        assert ask(room) == b""
        assert 0.05 <= time.monotonic() - begun < 2


def test_a_guest_that_leaves_is_no_harm() -> None:
    room, port = free_port(), free_port()
    with open_room(room, port, 5):
        socket.create_connection(("127.0.0.1", room)).close()
        with api(port):
            assert ask(room, b"x") == b"api:x"


def test_a_port_that_is_taken_is_no_error() -> None:
    taken = free_port()
    with socket.create_server(("127.0.0.1", taken)):
        with open_room(taken, free_port(), 5):
            pass
        assert not is_free(taken)


@pytest.mark.parametrize("is_taken", [True, False])
def test_what_fails_in_it_comes_out(is_taken: bool) -> None:
    room = free_port()

    def fails() -> None:
        with open_room(room, free_port(), 5):
            raise OSError("of the block itself")

    other = socket.create_server(("127.0.0.1", room)) if is_taken else None
    with pytest.raises(OSError, match="of the block itself"):
        fails()
    if other:
        other.close()
    assert is_free(room)


def test_only_this_machine_comes_in_and_the_port_is_free_after_it() -> None:
    room = free_port()
    with open_room(room, free_port(), 5):
        assert not is_free(room)
        socket.create_server(("127.0.0.2", room)).close()  # it has not taken all addresses
    assert is_free(room)
    with open_room(room, free_port(), 5):
        assert not is_free(room)


def test_a_guest_still_waiting_when_it_closes_keeps_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting_room, "LEAVE", 0.05)
    begun = time.monotonic()
    room = free_port()
    with open_room(room, free_port(), 1):
        guest = socket.create_connection(("127.0.0.1", room))
        time.sleep(0.02)
    assert time.monotonic() - begun < 0.9
    guest.close()


def test_an_api_that_resets_the_connection_ends_its_guests() -> None:
    """It started, accepted, and crashed: nobody is to wait for the end of the restart."""
    room, port = free_port(), free_port()
    with open_room(room, port, 5), socket.create_server(("127.0.0.1", port)) as server:
        guest = socket.create_connection(("127.0.0.1", room), timeout=5)
        guest.sendall(b"GET / HTTP/1.1\r\n")
        accepted = server.accept()[0]
        accepted.recv(4)
        linger = struct.pack("ii", 1, 0)  # close() sends a reset
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        accepted.close()
        assert guest.recv(1) == b""
        guest.close()

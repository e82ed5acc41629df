"""The waiting room: where nginx sends what it cannot hand to the API while that restarts."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

AGAIN = 0.05  # seconds
LEAVE = 2  # seconds: those that were let in get their answer


@contextmanager
def open_room(port: int, api_port: int, seconds: float) -> Iterator[None]:
    """Each connection waits until the API's port opens, for `seconds` at most, and is then passed through.

    A port that is taken already means no waiting room, and no error.
    """
    try:
        server = socket.create_server(("127.0.0.1", port), backlog=512)
    except OSError:
        yield
        return
    guests: list[threading.Thread] = []

    def receive() -> None:
        with suppress(OSError):  # the room was closed
            while True:
                guests.append(_thread(_serve, server.accept()[0], api_port, time.monotonic() + seconds))

    _thread(receive)
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        deadline = time.monotonic() + LEAVE
        for guest in guests:
            guest.join(max(0.0, deadline - time.monotonic()))


def _thread(target: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def _serve(guest: socket.socket, api_port: int, deadline: float) -> None:
    with guest:
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", api_port)) as api:
                _thread(_pass_on, guest, api)
                _pass_on(api, guest)
                guest.shutdown(socket.SHUT_RDWR)  # else the other thread keeps it open
                return
            time.sleep(AGAIN)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Until either side ends."""
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)

"""The waiting room: while the API restarts, nginx sends requests here instead, and they wait until it answers again.

It is a process of its own, which the step leaves behind until all who were let in have their answer: a request cut
off would be sent again by its client, and executed twice.

nginx looks for a sign at each request (templates/etc/nginx): a link to the thread that listens here, in /proc. It is
there only while requests are held; and where the room is killed, it points to nothing, so nginx asks the API as ever.
(`-e` follows links, and is false for a socket: nginx 1.26. Where nginx may not see other users' processes, as with
`hidepid`, it never sees the sign, and nobody waits.)
"""

import os
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from select import POLLRDHUP, poll, select
from typing import NoReturn

from remote import Failure, files

FOLDER = "/run/ai-admin-waiting-room"  # root's: nginx's workers come in, nobody else can listen here
SOCKET = f"{FOLDER}/{{port}}"  # the API's: another application on this host keeps its own requests
SIGN = f"{FOLDER}/{{port}}-restarts"  # there: nginx sends requests to the socket
LEAVE = 60  # seconds for those that were let in to get their answer: nginx's own proxy_read_timeout
HEAD = 65536  # bytes
KNOCK = 0.1  # seconds

# nginx asks again, and finds the API: a WebSocket that was passed on from here would end with the deploy.
ASK_AGAIN = b"HTTP/1.1 503 Ask again\r\nX-Accel-Redirect: %b\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Room:
    """Each guest waits for `let_in`, for `seconds` at most, and is then passed on to the API's `port`.

    Where the API ends without an answer, so does the connection: nginx, which has nobody else to ask, says 502.
    """

    def __init__(self, port: int, seconds: float) -> None:
        self.port, self.seconds = port, seconds
        self.socket, self.sign = SOCKET.format(port=port), SIGN.format(port=port)
        self.guests: list[threading.Thread] = []
        self._is_up = threading.Event()
        self._is_up.set()
        os.makedirs(FOLDER, exist_ok=True)
        os.chmod(FOLDER, 0o711)  # noqa: S103 (so that nginx reaches what is in it)
        for left in (self.sign, self.socket):
            files.remove(left)
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(self.socket)
        os.chmod(self.socket, 0o666)  # noqa: S103 (whoever connects reaches the API, as at its port)
        self.server.listen(512)
        self._over, self._end = socket.socketpair()
        self.thread = _thread(self._receive)

    def hold(self) -> None:
        """From now on requests come here."""
        if self._is_up.is_set():
            self._is_up.clear()
            os.symlink(f"/proc/{os.getpid()}/task/{self.thread.native_id}", self.sign)

    def let_in(self) -> bool:
        """The API answers: who waits is passed on, and new requests go to it directly. Returns whether any waited."""
        if self._is_up.is_set():
            return False
        files.remove(self.sign)
        self._is_up.set()
        return True

    def _receive(self) -> None:
        with self.server:
            while self.server in select([self.server, self._over], [], [])[0]:
                try:
                    guest = self.server.accept()[0]
                except OSError:  # too many files are open: it waits until others have gone
                    time.sleep(KNOCK)
                    continue
                self.guests.append(_thread(self._serve, guest, time.monotonic() + self.seconds))

    def close(self) -> None:
        """Nobody comes in any more, but whoever has knocked."""
        self.let_in()
        files.remove(self.socket)
        self._end.close()
        self.thread.join()

    def see_off(self) -> None:
        """Wait until all who were let in have their answer."""
        deadline = time.monotonic() + LEAVE
        for guest in self.guests:
            guest.join(max(0.0, deadline - time.monotonic()))

    def _serve(self, guest: socket.socket, deadline: float) -> None:
        with guest, suppress(OSError):
            if not self._is_up.wait(deadline - time.monotonic()) or _has_left(guest):
                return
            head = guest.recv(HEAD)
            target = re.match(rb"GET (\S+) .*\r\nUpgrade:", head, re.DOTALL | re.IGNORECASE)
            if target:
                guest.sendall(ASK_AGAIN % target[1])
                return
            with socket.create_connection(("127.0.0.1", self.port)) as api:
                api.sendall(head)
                _thread(_pass_on, guest, api)
                _pass_on(api, guest)
                guest.shutdown(socket.SHUT_RDWR)  # else the other thread keeps it open


class Door:
    """How a step tells its room what to do."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control

    def hold(self) -> None:
        self._tell(b"h")

    def let_in(self) -> bool:
        return self._tell(b"l") == b"1"

    def _tell(self, word: bytes) -> bytes:
        with suppress(OSError):  # somebody has killed it: then nginx asks the API as ever
            self.control.sendall(word)
            return self.control.recv(1)
        return b""


@contextmanager
def open_room(port: int, seconds: float) -> Iterator[Door]:
    """Holds requests until it is told to let them in, or ends: also by the end of this process, whatever ends it."""
    ours, its = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        _attend(its, port, seconds)
    its.close()
    with ours:
        if (said := ours.recv(HEAD)) != b"+":
            raise Failure(f"requests cannot wait while the API restarts: {said.decode() or 'the room ended'}")
        door = Door(ours)
        try:
            door.hold()
            yield door
        finally:
            with suppress(OSError):
                ours.shutdown(socket.SHUT_WR)
                ours.recv(1)  # it is closed


def _attend(control: socket.socket, port: int, seconds: float) -> NoReturn:
    """The room's process. It holds no lock of the step's, and is not waited for by whoever waits for the step."""
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        os.closerange(3, control.fileno())
        os.closerange(control.fileno() + 1, 65536)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # each guest takes two; sshd's sessions begin with 1024
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        try:
            room = Room(port, seconds)
        except OSError as error:
            control.sendall(files.why(error).encode())
            raise
        control.sendall(b"+")
        with suppress(OSError):
            while word := control.recv(1):
                if word == b"h":
                    room.hold()
                control.sendall(b"1" if word == b"l" and room.let_in() else b"0")
        room.close()
        control.close()
        room.see_off()
    finally:
        os._exit(0)


def _thread(target: Callable[..., None], *args: object) -> threading.Thread:
    thread = threading.Thread(target=target, args=args, daemon=True)
    thread.start()
    return thread


def _has_left(guest: socket.socket) -> bool:
    """nginx has told its client that it failed: nothing is to be executed for that any more."""
    poller = poll()
    poller.register(guest, POLLRDHUP)
    return bool(poller.poll(0))


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    """Until either side ends."""
    with suppress(OSError):
        while piece := source.recv(HEAD):
            target.sendall(piece)
        target.shutdown(socket.SHUT_WR)

"""A testinfra backend for many checks in the time of one: one connection, and commands that run side by side.

`host.run` and all that is built on it (`host.file`, `host.service`, …) work as with any other backend. A command goes
to an agent on the host (agent.py) together with those that other threads ask for at the same time, and its result is
kept: the same command asked again is answered from here. So `warm` runs every check in a thread of its own, and
whoever runs the checks after it, one by one, waits for nothing.

What it needs of the host: sh, and Python 3.8 or newer.
"""

from __future__ import annotations

import base64
import json
import queue
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult

AGENT = Path(__file__).with_name("agent.py")
LAUNCH = "import sys; exec(sys.stdin.buffer.read(int(sys.stdin.buffer.readline())))"  # for `python3 -c` on the host
QUIET = 0.003  # seconds without a new command, and those that came are sent
LIMIT = 60  # seconds for a command
GRACE = 15  # seconds more for the connection, and for commands that wait for their turn
# What testinfra 10.2 asks of any host before a file, a service or a socket, one after the other: asked at once.
BEFORE = (
    "uname -s",
    "uname -m",
    "cat /etc/os-release",
    "test -d /run/systemd/system/",
    "command -v command",
    "command -v ss",
)


class Lost(Exception):
    """There is no connection, or there is none any more. The message is one line."""


@dataclass(frozen=True)
class Done:
    """A command's result. `depth`: how many round trips it took to know that and what to ask."""

    code: int
    output: bytes
    errors: bytes
    depth: int


class Backend(BaseBackend):  # type: ignore[misc]  # testinfra has no types
    """`command` starts `python3 -c LAUNCH` on the host, which reads the agent after `preamble`. `environment` is for
    every command; it travels on standard input."""

    NAME = "batch"

    def __init__(
        self, name: str, command: list[str], preamble: str = "", environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(name)
        self._encoding = "utf-8"
        self._start = command
        self._preamble = preamble
        self._environment = {"LC_ALL": "C.UTF-8", **(environment or {})}
        self._lock = threading.Lock()
        self._asked: dict[str, Future[Done]] = {}
        self._numbered: list[tuple[Future[Done], int]] = []
        self._orders: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self.lost = ""  # why there is no connection any more
        self.said = ""  # all that ssh complained of until then
        self._of_thread = threading.local()
        self.began = 0.0  # seconds since the epoch
        self.round_trips = 0  # the longest row of commands that waited for one another

    def connect(self) -> None:
        """Begin to connect. `run` does it where it has not been done."""
        with self._lock:
            if self._process is not None:
                return
            self.began = time.time()
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(self._start, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        for work in (self._write, self._read):
            threading.Thread(target=work, daemon=True).start()
        for each in BEFORE:
            self._ask(each, LIMIT)

    def run(self, command: str, *args: str, **kwargs: Any) -> CommandResult:
        """`timeout=` is in seconds. Raises Lost."""
        self.connect()
        script = self.get_command(command, *args)
        limit = kwargs.get("timeout", LIMIT)
        answer = self._ask(script, limit)
        try:
            error = answer.exception(limit + GRACE)
        except TimeoutError:  # the agent would have ended the command
            self._end(f"no answer within {limit + GRACE:g} s")
            raise Lost(self.lost) from None
        if error is not None:
            raise copy(error)  # each time it is raised, the one that all share would grow by a traceback
        done = answer.result()
        self._of_thread.depth = max(self._depth, done.depth)
        self.round_trips = max(self.round_trips, done.depth)
        return self.result(done.code, self.encode(script), done.output, done.errors)

    def decode(self, data: bytes) -> str:
        return data.decode(errors="replace")

    def close(self) -> None:
        """End the connection, and with it all that runs on the host."""
        if self._process is not None:
            self._orders.put(None)
            try:
                self._process.wait(GRACE)
            except subprocess.TimeoutExpired:
                self._process.kill()  # all answers are here

    @property
    def _depth(self) -> int:
        depth: int = getattr(self._of_thread, "depth", 0)
        return depth

    def _ask(self, script: str, limit: float) -> Future[Done]:
        with self._lock:
            if (asked := self._asked.get(script)) is not None:
                return asked
            answer: Future[Done] = Future()
            if self.lost:
                answer.set_exception(Lost(self.lost))
                return answer
            self._asked[script] = answer
            self._numbered.append((answer, self._depth + 1))  # first: the answer may come at once
            self._orders.put(json.dumps([len(self._numbered) - 1, script, limit]))
            return answer

    def _write(self) -> None:
        """Send what is asked for, in few pieces."""
        assert self._process and self._process.stdin
        agent = AGENT.read_bytes()
        head = f"{self._preamble}{len(agent)}\n".encode() + agent + json.dumps(self._environment).encode() + b"\n"
        with suppress(OSError), self._process.stdin as pipe:  # `_read` says why the connection ended
            _send(pipe, head)
            while (order := self._orders.get()) is not None:
                orders = [order]
                with suppress(queue.Empty):
                    while (order := self._orders.get(timeout=QUIET)) is not None:
                        orders.append(order)
                _send(pipe, "".join(f"{each}\n" for each in orders).encode())
                if order is None:
                    return

    def _read(self) -> None:
        assert self._process and self._process.stdout and self._process.stderr
        with ThreadPoolExecutor(1) as pool:
            errors = pool.submit(self._process.stderr.read)
            for line in iter(_lines(self._process.stdout)):
                try:
                    number, code, *texts = json.loads(line)
                    answer, depth = self._numbered[number]
                    output, complaints = (zlib.decompress(base64.b64decode(each)) for each in texts)
                except (ValueError, TypeError, IndexError):
                    continue  # a login's greeting
                with suppress(InvalidStateError):  # nobody waits for it any more
                    answer.set_result(Done(code, output, complaints, depth))
            self.said = errors.result().decode(errors="replace").strip()
        said = self.said.splitlines()
        code = self._process.wait()
        self._end(said[-1] if said else f"the connection ended ({code})")

    def _end(self, why: str) -> None:
        """Nobody waits for an answer any more."""
        assert self._process
        self._process.kill()
        with self._lock:
            self.lost = self.lost or why
            waiting = [answer for answer, _ in self._numbered if not answer.done()]
        for answer in waiting:
            with suppress(InvalidStateError):  # its answer has come meanwhile
                answer.set_exception(Lost(self.lost))

    @property
    def exit_code(self) -> int | None:
        """Of the connection, once it has ended: 255 where ssh could not make it."""
        return self._process.poll() if self._process else None


def warm(calls: Iterable[Callable[[], object]]) -> None:
    """Make each call in a thread of its own, and wait for all. What they raise, they will raise again when they are
    called for good."""

    def quietly(call: Callable[[], object]) -> None:
        with suppress(BaseException):
            call()

    threads = [threading.Thread(target=quietly, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _send(pipe: Any, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[pipe.write(view) :]


def _lines(pipe: Any) -> Iterable[bytes]:
    rest = b""
    while data := pipe.read(1 << 20):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines

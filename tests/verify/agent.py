"""The host's half of backend.py: runs commands side by side. Standard library only; it comes over standard input.

Reads one line of JSON a command, `[number, command, seconds]`, and prints one a result, `[number, exit code, output,
errors]`, in the order in which they end; output and errors are compressed and in base64. The first line is the
environment. When the connection ends, so does all that it runs.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from io import BufferedReader
from typing import cast

CAP = 4_000_000  # bytes of one stream; a command that prints more is ended
AT_ONCE = 32  # commands
TIMED_OUT = 124  # as timeout(1) exits


class Agent:
    def __init__(self) -> None:
        self.lock = threading.Lock()  # of the set below, and of standard output
        self.running: set[subprocess.Popen[bytes]] = set()
        self.slots = threading.Semaphore(AT_ONCE)

    def serve(self) -> None:
        os.environ.update(json.loads(sys.stdin.buffer.readline()))
        for line in sys.stdin.buffer:
            threading.Thread(target=self.answer, args=json.loads(line), daemon=True).start()
        with self.lock:  # held to the end: no command starts any more
            for process in self.running:
                _end(process)
            os._exit(0)

    def answer(self, number: int, command: str, seconds: float) -> None:
        with self.slots:
            done = self.run(command, seconds)
        packed = [base64.b64encode(zlib.compress(text, 1)).decode() for text in done[1:]]
        with self.lock:
            print(json.dumps([number, done[0], *packed]), flush=True)

    def run(self, command: str, seconds: float) -> tuple[int, bytes, bytes]:
        with self.lock:
            pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
            process = subprocess.Popen(
                ["/bin/sh", "-c", command], stdin=nothing, stdout=pipe, stderr=pipe, start_new_session=True
            )
            self.running.add(process)
        why: list[str] = []

        def stop(reason: str) -> None:
            why.append(reason)
            _end(process)

        timer = threading.Timer(seconds, stop, [f"it did not end within {seconds:g} s"])
        timer.start()
        texts = [bytearray(), bytearray()]
        pipes = [cast(BufferedReader, each) for each in (process.stdout, process.stderr)]
        readers = [threading.Thread(target=_read, args=(*each, stop)) for each in zip(pipes, texts, strict=True)]
        for reader in readers:
            reader.start()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # while it is not reaped, its group is its own
        _end(process)  # what it may have left behind
        for reader in readers:
            reader.join()
        timer.cancel()
        with self.lock:
            self.running.discard(process)
        code = process.wait()
        if why:
            return TIMED_OUT, bytes(texts[0]), bytes(texts[1]) + f"\n{why[0]}".encode()
        return code if code >= 0 else 128 - code, bytes(texts[0]), bytes(texts[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)


def _read(pipe: BufferedReader, text: bytearray, stop: Callable[[str], None]) -> None:
    while data := pipe.read1(65536):
        text += data[: CAP - len(text)]
        if len(text) >= CAP:
            stop(f"it printed more than {CAP} bytes")
            return


if os.geteuid() != 0:  # else each check would give another reason, and a wrong one
    sys.exit("root is needed: connect as root, or set _sudo in the inventory")
Agent().serve()

"""Looks for secrets where none may be, while a deploy runs: command lines, environments, files others can reach.

A rehearsal host's processes and file systems are seen from this machine (/proc/<pid>/root), so one watcher samples both
sides at once, some dozens of times a second, in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

from tests.rehearsal.host import Host
from tests.rehearsal.story import ROOT

FOLDERS = ("tmp", "var/tmp", "dev/shm", "run")  # where temporary files end up
BIG = 1_000_000  # bytes; more is no temporary file of a deploy
DEEP = 4  # folders below the root
START = "canary-"  # how every planted secret begins


class Watcher:
    """`hits` says where a secret was seen, without the value; `samples` how often it looked."""

    def __init__(self, host: Host, secrets: list[str]) -> None:
        self.roots = (Path("/"), Path(f"/proc/{host.init}/root"))  # /tmp and /run are the host's own mounts
        self.needles = {secret.encode(): f"secret {number}" for number, secret in enumerate(secrets)}
        assert all(secret.startswith(START) for secret in secrets)
        self.own = (os.getpid(),)
        self.samples = 0
        self.hits: set[str] = set()

    def sample(self) -> None:
        """Look once, everywhere."""
        self.samples += 1
        for process in os.listdir("/proc"):  # noqa: PTH208 -- a Path for each costs more than the look
            if process.isdigit() and int(process) not in (*self.own, os.getpid()):
                self._look(f"/proc/{process}/cmdline")
                self._look(f"/proc/{process}/environ")
        for root in self.roots:
            for folder in FOLDERS:
                for at, folders, files in os.walk(root / folder):
                    if at == str(ROOT) or at.count("/") - str(root).count("/") > DEEP:
                        folders.clear()  # the bundle itself, where it was cloned there; and what is no temporary file
                    for name in files:
                        self._look(f"{at}/{name}")

    def _look(self, file: str) -> None:
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            return  # it ended, is gone, or is a socket
        try:
            content = os.read(descriptor, BIG)
        except OSError:
            return
        finally:
            os.close(descriptor)
        if START.encode() not in content:  # one search for all, so that it looks often
            return
        for needle, name in self.needles.items():
            if needle in content:
                self.hits.add(f"{name} in {file}")


def _run(watcher: Watcher, stop: Event, ready: Event, answer: multiprocessing.Queue[tuple[int, set[str]]]) -> None:
    while not stop.is_set():
        watcher.sample()
        ready.set()
    answer.put((watcher.samples, watcher.hits))


@contextmanager
def watching(host: Host, secrets: list[str]) -> Iterator[Watcher]:
    """Sample until the block ends; only then `samples` and `hits` are there to read."""
    watcher = Watcher(host, secrets)
    context = multiprocessing.get_context("fork")
    stop, ready = context.Event(), context.Event()
    answer: multiprocessing.Queue[tuple[int, set[str]]] = context.Queue()
    process = context.Process(target=_run, args=(watcher, stop, ready, answer), daemon=True)
    process.start()
    try:
        assert ready.wait(30), "the watcher did not start"
        yield watcher
    finally:
        stop.set()
        watcher.samples, watcher.hits = answer.get(timeout=60)
        process.join()

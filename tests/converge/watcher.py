"""Looks for secrets where none may be, while a deploy runs: command lines, environments, files others can reach.

A rehearsal host's processes and file systems are seen from this machine (/proc/<pid>/root), so one watcher samples both
sides at once, without pause, in a process of its own. What it must not miss on a busy machine waits for it: `during`
holds the host still whenever a run has started a program there, until the watcher has looked everywhere once.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import TypeVar

from tests.rehearsal.host import Host, until
from tests.rehearsal.story import ROOT

FOLDERS = ("tmp", "var/tmp", "dev/shm", "run")  # where temporary files end up
BIG = 1_000_000  # bytes; more is no temporary file of a deploy
DEEP = 4  # folders below the root
START = "773091758442"  # how every planted secret begins: an application id is a number
PATIENCE = 300  # seconds for one look at everything, on a machine that is busy with other things

T = TypeVar("T")


class Watcher:
    """`hits` says where a secret was seen, without the value. It is there to read when the watching has ended."""

    def __init__(self, host: Host, secrets: list[str]) -> None:
        self.roots = (Path("/"), Path(f"/proc/{host.init}/root"))  # /tmp and /run are the host's own mounts
        self.needles = {secret.encode(): f"secret {number}" for number, secret in enumerate(secrets)}
        assert all(secret.startswith(START) for secret in secrets)
        self.own = (os.getpid(),)
        self.samples: Synchronized[int] = multiprocessing.get_context("fork").Value("i", 0)
        self.host = host
        self.hits: set[str] = set()

    def look(self) -> None:
        """Wait until it has looked everywhere, from the beginning."""
        wanted = self.samples.value + 2  # the sample that runs now may be past where there is something to see
        until(PATIENCE, "the watcher", lambda: self.samples.value >= wanted)

    def during(self, run: Callable[[], T]) -> T:
        """What `run` returns, having looked at each program that it started on the host by ssh. It must start one."""
        before = programs(self.host)
        seen = set(before)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(run)
            while not running.done():
                time.sleep(0.005)
                if programs(self.host) - seen:
                    with self.host.frozen():
                        if new := programs(self.host) - seen:  # it has not ended meanwhile
                            self.look()
                            seen |= new
        result = running.result()
        assert seen - before, "no program of the run was seen on the host"
        return result

    def sample(self) -> None:
        """Look once, everywhere."""
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


def programs(host: Host) -> set[int]:
    """What ssh sessions have started on the host and still runs, by its pid on this machine.

    Not sshd's own helpers: who is stopped while a key is checked (OpenSSH 10's sshd-auth) is not let in.
    """
    parents, names = {}, {}
    for pid in host.processes():
        try:
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
        names[pid] = name
    sessions = {pid for pid, name in names.items() if name.startswith("sshd-session")}
    return {pid for pid, parent in parents.items() if parent in sessions and not names[pid].startswith("sshd")}


def _run(watcher: Watcher, stop: Event, answer: multiprocessing.Queue[set[str]]) -> None:
    while not stop.is_set():
        watcher.sample()
        watcher.samples.value += 1
    answer.put(watcher.hits)


@contextmanager
def watching(host: Host, secrets: list[str]) -> Iterator[Watcher]:
    """Sample until the block ends; only then `hits` is there to read."""
    watcher = Watcher(host, secrets)
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    answer: multiprocessing.Queue[set[str]] = context.Queue()
    process = context.Process(target=_run, args=(watcher, stop, answer), daemon=True)
    process.start()
    try:
        watcher.look()
        yield watcher
        watcher.look()
    finally:
        stop.set()
        watcher.hits = answer.get(timeout=PATIENCE)
        process.join()

"""Strike a program at a point: at its n-th system call of a kind, by strace's fault injection. No clock is involved."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent.parent

# Every system call by which Python 3 changes a file, or makes a change last.
FILES = ("openat", "write", "fsync", "rename", "unlink", "mkdir", "symlink")
CALLS = (*FILES, "fchmod", "fchown", "fsetxattr", "ftruncate")
KILLED = 128 + 9  # as strace ends when SIGKILL ended what it ran: it is the first of its namespace, and cannot die so


@dataclass(frozen=True)
class Point:
    """Before the `number`-th system call `call` of the program."""

    call: str
    number: int

    def __str__(self) -> str:
        return f"{self.call} {self.number}"


@dataclass(frozen=True)
class Work:
    """One function of `remote`, called in `folder`. `bundle` is where `remote/` is: the bundle's, or a mutant's."""

    folder: Path
    function: str
    arguments: dict[str, Any]
    bundle: Path = ROOT

    def _command(self) -> list[str]:
        return [sys.executable, str(HERE / "driver.py"), str(self.folder), json.dumps([self.function, self.arguments])]

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """In a process namespace of its own: `remote` looks through /proc, so the number of a call would else depend on
        how many processes this machine has just then."""
        command = ["unshare", "--fork", "--pid", "--mount-proc", *command]
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "PYTHONPATH": str(self.bundle), "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    def run(self) -> subprocess.CompletedProcess[str]:
        """To its end."""
        return self._run(self._command())

    def points(self) -> list[Point]:
        """All of its file-changing system calls from where its work begins. Runs it once, without its children."""
        log = self.folder / "strace.log"
        done = self._run(["strace", "-qq", "-o", str(log), "-e", f"trace={','.join(CALLS)},getppid", *self._command()])
        assert done.returncode == 0, done.stderr
        seen: Counter[str] = Counter()
        found: list[Point] = []
        begun = False
        for line in log.read_text(errors="replace").splitlines():
            call = line.partition("(")[0]
            begun = begun or call == "getppid"
            if call in CALLS:
                seen[call] += 1
                reads = call == "openat" and "O_CREAT" not in line
                if begun and not reads and not re.match(r"write\([12],", line):
                    found.append(Point(call, seen[call]))
        log.unlink()
        return found

    def killed_at(self, point: Point) -> None:
        """SIGKILL on entering the call, which is then not made."""
        done = self._injected(point, "signal=KILL")
        assert done.returncode == KILLED, f"it was not killed at {point}: {done.returncode} {done.stderr}"

    def failing_at(self, point: Point, error: str) -> subprocess.CompletedProcess[str]:
        """The call fails with this error, ENOSPC say, and is not made."""
        return self._injected(point, f"error={error}")

    def _injected(self, point: Point, what: str) -> subprocess.CompletedProcess[str]:
        inject = ["-e", f"trace={point.call}", "-e", f"inject={point.call}:{what}:when={point.number}"]
        return self._run(["strace", "-qq", "-o", "/dev/null", *inject, *self._command()])

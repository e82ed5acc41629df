"""Processes: run a program to its end, and tell one process from another."""

import os
import pwd
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from subprocess import PIPE, Popen, TimeoutExpired

from remote import Failure, files

TICKS = os.sysconf("SC_CLK_TCK")  # a second, in which /proc counts a process's start
NVM = ("/root/.nvm/versions/node/*/bin", "/home/*/.nvm/versions/node/*/bin")
# Where 127.0.0.1 leads, as /proc/net/tcp and tcp6 write it: itself, all of IPv4, all of IPv6, and itself within that
REACHED = ("0100007F", "00000000", "0" * 32, "0000000000000000FFFF00000100007F")
REMEDY = {
    "node": "install Node.js 20 or newer, or put it on the PATH of a non-interactive ssh",
    "pm2": "npm install --global pm2",
    "psql": "apt-get install postgresql-client",
}


class Done:
    """`status` is the exit code, negative for a signal."""

    def __init__(self, status: int, stdout: bytes, stderr: str) -> None:
        self.status, self.stdout, self.stderr = status, stdout, stderr

    def line_with(self, word: str) -> str:
        """The first line of its errors that has the word, else the last one."""
        lines = self.stderr.strip().splitlines() or [""]
        return next((line for line in lines if word in line), lines[-1])


def run(
    *command: str,
    stdin: bytes = b"",
    timeout: float = 30,
    cwd: str = "/",
    env: Mapping[str, str] | None = None,
    fds: Sequence[int] = (),
    user: str = "",
) -> Done:
    """To its end, as `user` where that is not us. After `timeout` seconds it and all its children are killed, and its
    errors say so.

    Its umask is 022 whatever ours is: not only root reads what npm installs.
    """
    require(command[0], path=(env or {}).get("PATH"))
    group = {"start_new_session": True, "umask": 0o022, "pass_fds": fds}
    if user and pwd.getpwnam(user).pw_uid != os.geteuid():
        gid = pwd.getpwnam(user).pw_gid
        group |= {"user": user, "group": gid, "extra_groups": os.getgrouplist(user, gid)}
    process = Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, cwd=cwd, env=env, **group)  # type: ignore[call-overload]
    try:
        stdout, stderr = process.communicate(stdin, timeout)
    except TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        stdout, stderr = process.communicate()
        stderr += f"\n{command[0]} did not end within {timeout:g} s".encode()
    return Done(process.returncode, stdout, stderr.decode(errors="replace"))


def require(*programs: str, path: str | None = None) -> None:
    """Raises Failure for the first that is not in a folder of `path`, by default our own PATH."""
    folders = (path or os.environ["PATH"]).split(":")
    for program in programs:
        if not any(os.access(os.path.join(folder, program), os.X_OK) for folder in folders):
            import glob  # takes 2 ms, and a look needs none of it

            elsewhere = [found for folder in NVM for found in glob.glob(f"{folder}/{program}")]
            if elsewhere:
                remedy = (
                    "which a non-interactive ssh does not have on its PATH; start the API with pm2, and it is found"
                )
                raise Failure(f"{program} is only in {os.path.dirname(elsewhere[-1])}, {remedy}")
            raise Failure(f"{program} is not installed: {REMEDY.get(program, f'apt-get install {program}')}")


class Process:
    """A process that cannot be mistaken for a later one of the same number.

    `id` is `boot/pid/start in clock ticks`. `started` is seconds since the epoch by the wall clock, good to 20 ms.
    """

    def __init__(self, pid: int, id: str, started: float) -> None:
        self.pid, self.id, self.started = pid, id, started


def identify(pid: int | str) -> Process | None:
    """None when it has ended."""
    fields = _stat(pid)
    if not fields:
        return None
    boot = files.read_text("/proc/sys/kernel/random/boot_id")
    booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)  # not /proc/uptime: LXC's is the container's
    return Process(int(pid), f"{boot}/{pid}/{fields[19]}", booted + int(fields[19]) / TICKS)


def is_suspended(pid: int | str) -> bool:
    """By a signal: it holds its port and answers nothing."""
    return (_stat(pid) or [""])[0] in ("T", "t")


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on: the second may hold spaces."""
    return files.read_text(f"/proc/{pid}/stat").rpartition(") ")[2].split()


def environment(pid: int | str) -> list[str]:
    """What the process was started with, as `NAME=value`; empty when it has ended."""
    return files.text(files.read(f"/proc/{pid}/environ") or b"").split("\0")


def variable(name: str) -> str:
    """Of the nearest ancestor that has it: sudo passes few of them on."""
    pid = os.getpid()
    while pid > 1:
        for line in environment(pid):
            if line.startswith(f"{name}="):
                return line.partition("=")[2]
        pid = int((_stat(pid) or ["", "0"])[1])
    return ""


def user_of(path: str) -> str:
    """The owner of a file, or of a process (/proc/<pid>): a name, else a number. root, where there is nothing."""
    uid = 0
    with suppress(OSError, KeyError):
        uid = os.stat(path).st_uid
        return pwd.getpwuid(uid).pw_name
    return str(uid) if uid else "root"


def is_of_this_host(pid: int | str) -> bool:
    """And not of a container on it, whose root is another folder."""
    with suppress(OSError):
        return os.path.samefile(f"/proc/{pid}/root", "/")
    return False


def listens(pid: int | str, port: int) -> bool:
    """Does this very process hold the listening port?"""
    return _holds(pid, _listening(port))


def holder(port: int) -> str | None:
    """The pid of a process that holds the listening port."""
    sockets = _listening(port)
    pids = [pid for pid in files.names("/proc") if pid.isdigit()] if sockets else []
    return next((pid for pid in pids if _holds(pid, sockets)), None)


def is_below(pid: int | str, above: Collection[int]) -> bool:
    """Is it one of these processes, or a child of theirs?"""
    at = int(pid)
    while at > 1 and at not in above:
        at = int((_stat(at) or ["", "0"])[1])
    return at in above


def _listening(port: int) -> dict[str, str]:
    """By socket that listens on the port, its address, as the kernel writes it."""
    tables = files.read_text("/proc/net/tcp") + "\n" + files.read_text("/proc/net/tcp6")
    rows = [line.split() for line in tables.splitlines()]
    found = [row for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"]
    return {f"socket:[{row[9]}]": row[1].partition(":")[0] for row in found}


def reached(port: int) -> bool:
    """Does somebody listen at the port where 127.0.0.1 leads? Node's `listen(port, 'localhost')` may mean ::1 alone."""
    return any(address in REACHED for address in _listening(port).values())


def _holds(pid: int | str, sockets: Collection[str]) -> bool:
    return any(files.link(f"/proc/{pid}/fd/{name}") in sockets for name in files.names(f"/proc/{pid}/fd"))

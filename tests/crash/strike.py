"""Strike a function at a point: its n-th file-changing system call kills it, or fails. No clock is involved.

The function runs in a child of this process. Linux hands each of its calls to us before it is made (seccomp's user
notification, by libseccomp 2.5): no program is started and no tracer attached, so a strike costs some milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
from collections.abc import Callable
from typing import NamedTuple

from remote import Failure

# Every system call by which Python 3 changes a file, makes a change last, or takes a lock.
CALLS = (
    *("openat", "write", "pwrite64", "writev", "sendfile", "copy_file_range", "fsync", "fdatasync", "truncate"),
    *("ftruncate", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat", "rmdir", "chmod", "fchmod", "fchmodat", "chown", "lchown", "fchown", "fchownat"),
    *("setxattr", "lsetxattr", "fsetxattr", "utimensat", "flock"),
)
CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
ALLOW, NOTIFY = 0x7FFF0000, 0x7FC00000  # libseccomp's SCMP_ACT_ALLOW, SCMP_ACT_NOTIFY
CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE: the call is made


class _Data(ctypes.Structure):
    _fields_ = (
        ("call", ctypes.c_int),
        ("arch", ctypes.c_uint32),
        ("place", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


class _Request(ctypes.Structure):
    _fields_ = (("id", ctypes.c_uint64), ("pid", ctypes.c_uint32), ("flags", ctypes.c_uint32), ("data", _Data))


class _Answer(ctypes.Structure):
    _fields_ = (
        ("id", ctypes.c_uint64),
        ("value", ctypes.c_int64),
        ("error", ctypes.c_int32),
        ("flags", ctypes.c_uint32),
    )


_library = ctypes.CDLL("libseccomp.so.2")
_library.seccomp_init.restype = ctypes.c_void_p
_library.seccomp_api_get()  # it then knows what this kernel can
_NAMES = {_library.seccomp_syscall_resolve_name(name.encode()): name for name in CALLS}


class Strike(NamedTuple):
    """At the `at`-th call, from 1: SIGKILL, or this `error` instead of the call; and of all later ones if `lasting`."""

    at: int = 0
    error: int = 0
    lasting: bool = False

    def hits(self, number: int) -> bool:
        return bool(self.at) and (number == self.at or (self.lasting and number > self.at))


NOTHING = Strike()


class Outcome(NamedTuple):
    """The `calls` that were made or struck, `killed`, and what the function failed with, if it did."""

    calls: list[str]
    killed: bool
    failure: str


def struck(function: Callable[[], object], strike: Strike = NOTHING) -> Outcome:
    """Run the function in a child, with this strike. A defect in it (no Failure, no OSError) is an AssertionError."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        _child(function, theirs)
    theirs.close()
    _, (listener,), _, _ = socket.recv_fds(ours, 1, 1)
    calls: list[str] = []
    try:
        while (request := _next(listener)) is not None:
            is_struck = False
            if request.pid == pid and _is_change(request):
                calls.append(_NAMES[request.data.call])
                is_struck = strike.hits(len(calls))
            if is_struck and not strike.error:
                os.kill(pid, signal.SIGKILL)
            else:
                answer = (0, -strike.error, 0) if is_struck else (0, 0, CONTINUE)
                _library.seccomp_notify_respond(listener, ctypes.byref(_Answer(request.id, *answer)))
        said = b""
        while piece := ours.recv(65536):
            said += piece
    finally:
        os.close(listener)
        ours.close()
        _, status = os.waitpid(pid, 0)
    assert not said.startswith(b"!"), said.decode()
    return Outcome(calls, os.WIFSIGNALED(status), said.decode())


def _next(listener: int) -> _Request | None:
    """None when the child has ended."""
    while True:
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        if not poll.poll()[0][1] & select.POLLIN:
            return None
        request = _Request()
        if _library.seccomp_notify_receive(listener, ctypes.byref(request)) == 0:
            return request


def _is_change(request: _Request) -> bool:
    """Of a file: not what is only read, nor what goes to the standard streams."""
    name, arguments = _NAMES[request.data.call], request.data.arguments
    if name == "openat":
        return bool(arguments[2] & CHANGES)
    return not (name in ("write", "writev") and arguments[0] <= 2)


def _child(function: Callable[[], object], result: socket.socket) -> None:
    said = b"!it did not begin"
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        filter_ = ctypes.c_void_p(_library.seccomp_init(ALLOW))
        for call in _NAMES:
            assert _library.seccomp_rule_add(filter_, NOTIFY, call, 0) == 0
        assert _library.seccomp_load(filter_) == 0, "seccomp is not allowed here"
        listener = _library.seccomp_notify_fd(filter_)
        socket.send_fds(result, [b"-"], [listener])
        os.close(listener)
        said = b""
        function()
    except (Failure, OSError) as error:
        said = str(error).encode()
    except BaseException as error:
        said = f"!{type(error).__name__}: {error}".encode()
    finally:
        result.sendall(said)
        os._exit(0)

"""Runs pyinfra again and again and kills it: `killer.py ARGUMENT…`, a delay in seconds per line of standard input.

Answers each line with the seconds the client lived, and whether it was killed. pyinfra is imported once and forked for
each run, so that a run costs what its work costs.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from pyinfra_cli.main import main


def run(delay: float) -> tuple[float, bool]:
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        quiet = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(quiet, descriptor)
        sys.argv = ["pyinfra", *sys.argv[1:]]
        main()
        os._exit(0)
    while time.monotonic() - started < delay:
        ended, _ = os.waitpid(pid, os.WNOHANG)
        if ended:
            return time.monotonic() - started, False
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return time.monotonic() - started, True


for line in sys.stdin:
    lived, killed = run(float(line))
    print(lived, int(killed), flush=True)

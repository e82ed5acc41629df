"""A step: one change, in one process. It completes, or leaves the old state and says why, also when the client is gone.

It starts only when its whole input has been read, has no terminal, and ignores hang-up and broken pipe.
"""

import importlib
import json
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from remote import Failure, files, wire
from remote.lock import DEPLOY, STEP, held, holder

WAIT = 45  # seconds
ENDED = "the host ended this deploy because it no longer heard from this machine; run again"


def outlive_the_client() -> None:
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def step(*, function: str, deploy: str, arguments: Mapping[str, Any]) -> None:
    """Call `module.name` of these modules, once no other step runs; prints what it returns, or why it failed.

    One step at a time, whoever's: one may have outlived the connection of its deploy. And only while its deploy's
    session is there to put back what nothing loads (`session.py`): one that was on its way when that ended comes late.
    """
    outlive_the_client()
    module, _, name = function.rpartition(".")
    try:
        with held(STEP, WAIT) as lock:
            if lock is None:
                raise Failure("a step of an earlier deploy still runs on the host; run again in a minute")
            with held(DEPLOY, 0) as unwatched:
                if unwatched is not None or holder().get("deploy") != deploy:
                    raise Failure(ENDED)
            result = getattr(importlib.import_module(module), name)(deploy, **arguments)
    except Exception as error:
        _print(files.why(error), sys.stderr)
        sys.exit(1)
    _print(json.dumps(result or {}), sys.stdout)


def _print(text: str, stream: Any) -> None:
    with suppress(OSError):  # nobody may be there to read it
        print(wire.printable(text), file=stream, flush=True)

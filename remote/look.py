"""One look at the host: each noun that was asked for is read, side by side, in one process. It changes nothing."""

import importlib
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from remote import Failure, files, wire

# A key that can only converge may begin a session, which is asked more later: other modules have a `read` too.
NOUNS = ["backups", "dotenv", "migration", "nginx", "npm", "pm2", "source"]
Questions = Mapping[str, Mapping[str, Any]]  # by noun, the arguments of its `read`


def look(questions: Questions) -> dict[str, Any]:
    """By noun, in the order asked, what its `read` returns, or `{"error": why}`."""
    found: dict[str, Any] = dict.fromkeys(questions)
    threads = [threading.Thread(target=_read, args=(found, *each)) for each in questions.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _read(found: dict[str, Any], noun: str, arguments: Mapping[str, Any]) -> None:
    try:
        if noun not in NOUNS:
            raise Failure(f"{noun} is no noun")
        found[noun] = importlib.import_module(f"remote.{noun}").read(**arguments)
    except Exception as error:
        found[noun] = {"error": files.why(error)}


def require_root() -> None:
    """Exit if not root, and say so: each noun would give a different reason, and a wrong one."""
    if os.geteuid() != 0:
        sys.exit("root is needed: connect as root, or set _sudo in the inventory")


def show(*, questions: Questions) -> None:
    """Look without a lock, as a plan does: prints the readings in one line."""
    require_root()
    print(wire.pack({"readings": look(questions)}))

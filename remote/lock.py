"""Locks: one deploy at a time, and one step at a time, on a host. Held by this very process, so never left behind."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from remote import files

DEPLOY, STEP = "deploy.lock", "step.lock"
FOLDER = "/run/ai-admin-deploy"  # for root alone: nobody else can hold a lock, or write what we print of its holder
AGAIN = 0.05  # seconds


@contextmanager
def held(name: str, wait: float) -> Iterator[int | None]:
    """The lock's open file, or None when somebody else still holds it after `wait` seconds.

    No child inherits it (Python's descriptors are closed on exec), so a `psql` that hangs cannot keep it.
    """
    files.make_private_folder(FOLDER)
    descriptor = os.open(os.path.join(FOLDER, name), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield descriptor if _taken(descriptor, time.monotonic() + wait) else None
    finally:
        os.close(descriptor)


def holder() -> dict[str, Any]:
    """Who deploys, or did so last: `who`, `from`, `since`, `deploy` (its id), `app`; nothing while that is written."""
    with suppress(ValueError):
        return dict(json.loads(files.read(f"{FOLDER}/{DEPLOY}") or b""))
    return {}


def _taken(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(AGAIN)

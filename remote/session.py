"""A session: one deploy at a time per host, and a line about each in the audit log.

The process lives as long as the deploy's connection, and holds the lock itself: whatever ends it ends the lock.
"""

import json
import os
import re
import sys
import threading
import time
from contextlib import suppress

from remote import Failure, backups, files, lock, services, step, wire
from remote.look import Questions, look, require_root
from remote.processes import run, variable
from remote.readings import Any

LOCK = "deploy.lock"
AUDIT = "/var/log/ai-admin-deploy.jsonl"
AUDIT_SIZE = 1_000_000  # bytes; then it becomes .1, and .1 becomes .2
ALIVE = 20  # seconds


def session(*, who: str, bundle: str, wait: int, questions: Questions) -> None:
    """Take the lock, look, and stay until the connection ends; then write down what the client said of the deploy.

    Prints one line: `{"deploy": id, "readings": …}`; or `{"locked": its holder}` when somebody still deploys after
    `wait` seconds; or `{"busy": true}` while a step of a deploy, whose connection was cut, still runs.

    A deploy that was cut off or failed may have written what no service has loaded yet, and what none may survive: at
    some later restart the site would be down. So that is put back, and printed at the end: `{"put_back": files}`.
    """
    require_root()
    step.outlive_the_client()
    threading.Thread(target=_show_life, daemon=True).start()
    address, port = [*variable("SSH_CONNECTION").split(), "", ""][:2]
    began = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}Z"
    holder = {"who": who, "from": address or "this host", "since": began}
    with lock.held(LOCK, wait) as mine:
        if mine is None:
            _print({"locked": json.loads(files.read(f"{lock.FOLDER}/{LOCK}") or b"{}")})
            return
        os.truncate(mine, 0)
        os.write(mine, json.dumps(holder).encode())
        with lock.held(step.LOCK, step.WAIT) as quiet:  # look when the last step is done
            if quiet is None:
                _print({"busy": True})
                return
        deploy = backups.new_deploy()
        _print({"deploy": deploy, "readings": look(questions)})
        key = _key(port) if port else None  # now: at the end the client would wait for it
        said = {"result": "cut off", "changed": []}
        with suppress(ValueError):  # nothing, or half of it
            said = json.loads(sys.stdin.buffer.read())
        if said["result"] != "ok":
            said["put_back"] = _put_back(deploy)
            _print({"put_back": said["put_back"]})
        changed = list(backups.manifest(deploy))
        entry = {"at": began, "deploy": deploy, "who": who, "from": holder["from"], "key": key, "bundle": bundle}
        _audit({**entry, **said, "files": changed})


def _put_back(deploy: str) -> list[str]:
    """What it wrote and no service has loaded, once the step that may still run is done: it may be the one that loads.

    Of nobody else: an earlier deploy's may have been loaded since, by a restart that was not ours.
    """
    back: list[str] = []
    with lock.held(step.LOCK, step.WAIT) as quiet:
        for service in ("nginx", "api") if quiet is not None else ():
            with suppress(Failure, OSError):
                back += services.undo(service, deploy)
    return back


def _print(answer: dict[str, Any]) -> None:
    with suppress(OSError):
        print(wire.pack(answer), flush=True)


def _show_life() -> None:
    """A connection that is dead but not closed shows itself by this."""
    while True:
        time.sleep(ALIVE)
        with suppress(OSError):
            print(flush=True)


def _key(port: str) -> str | None:
    """The fingerprint of the key that this connection came with, as sshd wrote to the journal: by the client's port."""
    match = f"Accepted publickey .* port {port} "
    with suppress(Failure, OSError):  # the lock must not go for it
        found = run("journalctl", "-q", "-o", "cat", "-n", "1", "-t", "sshd", "-t", "sshd-session", "-g", match)
        key = re.search(rb"SHA256:\S+", found.stdout)
        return key[0].decode() if key else None
    return None


def _audit(entry: dict[str, Any]) -> None:
    if os.path.exists(AUDIT) and os.path.getsize(AUDIT) >= AUDIT_SIZE:
        if os.path.exists(f"{AUDIT}.1"):
            os.replace(f"{AUDIT}.1", f"{AUDIT}.2")
        os.replace(AUDIT, f"{AUDIT}.1")
    with open(os.open(AUDIT, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "w", encoding="utf-8") as log:
        log.write(json.dumps(entry, ensure_ascii=False) + "\n")

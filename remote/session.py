"""A session: one deploy at a time per host, and a line about each in the audit log.

The process lives as long as the deploy's client, and holds the lock itself: whatever ends it ends the lock.
"""

import fcntl
import json
import math
import os
import re
import select
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from remote import Failure, backups, files, lock, nginx, pm2, services, step, wire
from remote.look import Questions, look, require_root
from remote.processes import run, variable

AUDIT = "/var/log/ai-admin-deploy.jsonl"
AUDIT_SIZE = 1_000_000  # bytes; then it becomes .1, and .1 becomes .2
BEAT = 5  # seconds between two signs of life of the client
KEY = 5  # seconds for the journal to be searched
MISSED = 6  # of them, after which it is gone: it sleeps, or the connection is dead and not closed


def session(*, who: str, app: str, bundle: str, wait: int, questions: Questions, resumed: str = "") -> None:
    """Take the lock for a deploy of `app`, look, and stay as long as the client does: it sends `{"questions": …}` for
    each further look, and at its end `{"result": …, "changed": …}`, which is written down. `resumed`: the id of the
    client's deploy, whose session was killed.

    Prints a line for each look: `{"deploy": id, "readings": …}`. Or one alone: `{"locked": its holder}` when somebody
    still deploys after `wait` seconds; `{"busy": true}` while a step of a deploy, whose connection was cut, still runs.

    A deploy that was cut off or failed may have written what no service has loaded yet, and what none may survive: at
    some later restart the site would be down. So that is put back, and not what an earlier deploy wrote: that may have
    been loaded since, by a restart that was not ours. Prints at the end that: `{"put_back": files, "stuck": files}`, of
    which the second could not go back; `{}` after a deploy that went well.
    """
    require_root()
    step.outlive_the_client()
    address, port = [*variable("SSH_CONNECTION").split(), "", ""][:2]
    began = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())}Z"
    with lock.held(lock.DEPLOY, wait) as mine:
        if mine is None:
            _print({"locked": lock.holder()})
            return
        last, locked = lock.holder().get("deploy", ""), time.monotonic()
        deploy = resumed if resumed and resumed == last else backups.new_deploy(last)
        holder = {"who": who, "from": address or "this host", "since": began, "deploy": deploy, "app": app}
        os.truncate(mine, 0)
        os.write(mine, json.dumps(holder).encode())
        with lock.held(lock.STEP, step.WAIT) as quiet:  # look when the last step is done
            if quiet is None:
                _print({"busy": True})
                return
            backups.remove_left_overs()
            services.take_over(app)
        readings = look(questions)
        _settle(questions, readings)
        _print({"deploy": deploy, "readings": readings})
        key = _key(address, port) if port else None  # now, as at the end the client would wait
        while "questions" in (said := _heard()):
            pm2.owner.cache_clear()  # the app may be another daemon's by now
            _print({"deploy": deploy, "readings": look(said["questions"])})
        with lock.held(lock.STEP, math.inf):  # the step that may still run may be the one that loads
            back = {} if said["result"] == "ok" else _give_up(deploy, time.monotonic() - locked)
            _print(back)
            entry = {"at": began, **{name: holder[name] for name in ("deploy", "app", "who", "from")}}
            _audit({**entry, "key": key, "bundle": bundle, **said, **back, "files": _changed(deploy)})
            fcntl.flock(mine, fcntl.LOCK_UN)  # before the other, so that a step on its way finds no session


def _heard() -> dict[str, Any]:
    """The client's next line that is more than a sign of life; `cut off` where it is gone, or gives none."""
    said, missed = b"", 0
    while missed < MISSED and not said.endswith(b"\n"):
        # In pieces: after a pause of this whole machine one of them is over, not all.
        if not select.select([0], [], [], BEAT)[0]:
            missed += 1
        elif piece := os.read(0, 65536):
            said, missed = (said + piece).lstrip(b"\n"), 0
        else:
            break
    with suppress(ValueError):  # nothing, or half of it
        return dict(wire.unpack(said))
    return {"result": "cut off", "changed": []}


def _settle(questions: Questions, readings: Mapping[str, Any]) -> None:
    """What an earlier deploy wrote, and the service has run well for a while, is not for a later failure to undo."""
    with suppress(Failure, OSError):
        if readings.get("nginx", {}).get("running"):
            services.settle_outlived("nginx", nginx.workers())
        if readings.get("pm2", {}).get("status") == "online":
            app = questions["pm2"]["api"]["app"]
            services.settle_outlived(services.of(app), pm2.processes(app))


def _give_up(deploy: str, age: float) -> dict[str, list[str]]:
    """Put back what no service has loaded. `age`: seconds since this deploy took the lock."""
    put_back, stuck, noted = list[str](), list[str](), list[str]()
    try:
        noted = services.noted()
    except OSError as error:  # of a disk that fails
        stuck.append(files.why(error))
    for service in noted:
        undone = services.undo(service, deploy)
        put_back += undone.files
        stuck += undone.stuck
        if undone.files and service != "nginx":
            _restart(service.removeprefix("app-"), age)
    return {"put_back": put_back, "stuck": stuck}


def _restart(app: str, age: float) -> None:
    """Restart the app where somebody else has started it meanwhile, as systemd does when pm2's daemon dies: it may hang
    because of what is put back now. (One that exits is started again by pm2 7.0, for ever.)"""
    with suppress(Failure, OSError):
        since = time.time() - age
        if any(process.started > since for process in pm2.processes(app)) and pm2.daemon_runs(app):
            pm2.command(app, "/", "restart", app)


def _print(answer: dict[str, Any]) -> None:
    with suppress(OSError):
        print(wire.pack(answer), flush=True)


def _key(address: str, port: str) -> str | None:
    """The fingerprint of the key that this connection came with, as sshd wrote to the journal: by the client's address
    and port. None where it came by password, say."""
    words = ["-q", "-o", "cat", "-n", "1", "--since", "-1h", "-t", "sshd", "-t", "sshd-session"]
    match = f"Accepted publickey .* from {re.escape(address)} port {port} "
    with suppress(Failure, OSError):  # the lock must not go for it
        found = run("journalctl", *words, "-g", match, timeout=KEY)
        key = re.search(rb"SHA256:\S+", found.stdout)
        return key[0].decode() if key else None
    return None


def _changed(deploy: str) -> list[str]:
    with suppress(OSError):  # of a disk that fails: the rest must be written down all the same
        return list(backups.manifest(deploy))
    return []


def _audit(entry: dict[str, Any]) -> None:
    if files.size(AUDIT) >= AUDIT_SIZE:
        if os.path.exists(f"{AUDIT}.1"):
            os.replace(f"{AUDIT}.1", f"{AUDIT}.2")
        os.replace(AUDIT, f"{AUDIT}.1")
    with open(os.open(AUDIT, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "w", encoding="utf-8") as log:
        log.write(json.dumps(entry, ensure_ascii=False) + "\n")

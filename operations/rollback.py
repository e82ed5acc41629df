"""Undo a deploy: its files become what they were before it. Database and packages stay: both only added something."""

from collections.abc import Generator

from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.backups
import remote.pm2
import remote.rollback
from channel import Channel, Step
from facts.look import ask
from remote.readings import Api
from rules import KEYS
from settings import BadInput


@operation()
def files(undo: str, api: Api, lock_wait: int) -> Generator[Step[...]]:
    """`undo` is the deploy's UTC time, empty for the last; `lock_wait` seconds to wait while somebody else deploys."""
    channel = Channel.of(host)
    channel.lock_wait = lock_wait
    deploys = ask(host, remote.backups.read)
    pm2 = ask(
        host,
        remote.pm2.read,
        app=api["app"],
        app_dir=api["app_dir"],
        port=api["port"],
        packages=api["packages"],
        keys=KEYS,
    )
    undo = undo or max(deploys, default="")
    if undo not in deploys:
        known = ", ".join(deploys) or "none"
        raise BadInput(f"rollback: {host.name} keeps no files of deploy {undo or '(any)'}; it has: {known}")
    lines = [f"  back as it was before: {file}" for file in deploys[undo]]
    stay = "  the migration and the npm packages stay: they only added something"
    channel.say([f"rollback of deploy {undo}:", *lines, stay])
    yield Step(remote.rollback.roll_back, undo=undo, api=api, status=pm2["status"], shadowed=pm2["shadowed"])

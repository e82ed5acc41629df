"""Undo a deploy: its files become what they were before it. Database and packages stay: both only added something."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra.api.operation import operation
from pyinfra.context import host

from facts.look import Wanted, look
from operations.step import Step, say
from settings import BadInput


@operation()
def files(wanted: Wanted) -> Generator[Step]:
    now = look(host, wanted)
    deploys = now.backups.deploys
    undo = wanted.settings.undo or max(deploys, default="")
    if undo not in deploys:
        known = ", ".join(deploys) or "none"
        raise BadInput(f"rollback: {host.name} keeps no files of deploy {undo or '(any)'}; it has: {known}")
    say(host, [f"rollback of deploy {undo}:"])
    say(host, [f"  back as it was before: {file}" for file in deploys[undo]])
    say(host, ["  the migration and the npm packages stay: they only added something"])
    pm2 = now.pm2
    yield Step("rollback", "rollBack", wanted, undo=undo, status=pm2.status, shadowed=pm2.shadowed)

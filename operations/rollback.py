"""Undo a deploy: its files become what they were before it. Database and packages stay: both only added something."""

from collections.abc import Generator

from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.backups
import remote.rollback
from channel import Channel, Step
from facts.look import ask
from remote.readings import Api
from rules import JWT_SECRET, KEYS
from settings import BadInput


@operation()
def files(undo: str, api: Api, lock_wait: int) -> Generator[Step[...]]:
    """`undo` is the deploy's UTC time, empty for the last whose files are not back; `lock_wait`: seconds to wait while
    somebody else deploys."""
    channel = Channel.of(host)
    channel.lock_wait = lock_wait
    deploys = ask(host, remote.backups.read, keys=KEYS)
    in_force = [each for each, found in deploys.items() if not all(file["is_back"] for file in found.values())]
    undo = undo or max(in_force, default="")  # one that failed was put back already
    if undo not in deploys:
        known = ", ".join(deploys) or "none"
        raise BadInput(f"rollback: {host.name} keeps no files of deploy {undo or '(any)'}; it has: {known}")
    lines = [f"rollback of deploy {undo}:"]
    if any(found["again"] for found in deploys[undo].values()):
        lines = [f"rollback of deploy {undo}, which was a rollback itself: what it undid comes back:"]
    for file, found in deploys[undo].items():
        lines.append(f"  back as it was before: {file}")
        later = [deploy for deploy in deploys if deploy > undo and file in deploys[deploy]]
        if later:
            lines.append(f"    later deploys changed it too, and are undone in it: {', '.join(later)}")
        elif found["changed"]:
            lines.append("    somebody else has changed it since: their text goes to the backups of this rollback")
        if found["loses"]:
            public = "; the application then signs with its public default" if JWT_SECRET in found["loses"] else ""
            lines.append(f"    it had no {', '.join(found['loses'])} then{public}")
    if any(not file.startswith("/etc/") for file in deploys[undo]):
        lines.append(f"  {api['app']} is restarted")
    channel.say([*lines, "  the migration and the npm packages stay: they only added something"])
    yield Step(remote.rollback.roll_back, undo=undo, api=api, keys=KEYS)

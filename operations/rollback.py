"""Undo a deploy: its files become what they were before it. Database and packages stay as they are."""

from collections.abc import Generator, Mapping

from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.backups
import remote.rollback
from channel import Channel, Step
from facts.look import ask
from remote.readings import Api, Undone
from rules import JWT_SECRET, KEYS
from settings import BadInput


def _is_of(api: Api, found: Mapping[str, Undone]) -> bool:
    """Was this deploy the application's? Without `app` only its files tell."""
    app, places = api["app"], ("/etc/", f"{api['app_dir']}/")
    return all(each["app"] == app or (not each["app"] and file.startswith(places)) for file, each in found.items())


@operation()
def files(undo: str, api: Api, lock_wait: int) -> Generator[Step[...]]:
    """`undo` is the deploy's UTC time, empty for the last of this application whose files are not back; `lock_wait`:
    seconds to wait while somebody else deploys."""
    channel = Channel.of(host)
    channel.app, channel.lock_wait = api["app"], lock_wait
    deploys = ask(host, remote.backups.read, keys=KEYS)
    own = {each: found for each, found in deploys.items() if _is_of(api, found)}
    in_force = [each for each, found in own.items() if not all(file["is_back"] for file in found.values())]
    undo = undo or max(in_force, default="")  # one that failed was put back already
    if not undo and len(host.state.activated_hosts) > 1:
        channel.say([f"rollback: there is no deploy of {api['app']} to undo here"])  # others may have one
        return
    if undo not in own:
        known = ", ".join(own) or "none"
        if not undo:
            raise BadInput(f"rollback: {host.name} has no deploy of {api['app']} to undo; put back already: {known}")
        raise BadInput(f"rollback: {host.name} has no backup of deploy {undo} of {api['app']}; it has: {known}")
    lines = [f"rollback of deploy {undo}:"]
    if undid := next((found["undoes"] for found in deploys[undo].values()), ""):
        lines = [f"rollback of deploy {undo}, itself the rollback of {undid}, whose changes come back:"]
    for file, found in deploys[undo].items():
        lines.append(f"  put back as it was: {file}")
        later = [deploy for deploy in deploys if deploy > undo and file in deploys[deploy]]
        if later:
            lines.append(f"    later deploys changed it too, and their changes to it are undone: {', '.join(later)}")
        elif found["changed"]:
            lines.append("    somebody else has changed it since: their text goes to the backups of this rollback")
        if found["loses"]:
            signs = f"; without {JWT_SECRET} the application signs with its public default"
            public = signs if JWT_SECRET in found["loses"] else ""
            lines.append(f"    at that time it had no {', '.join(found['loses'])}{public}")
    if any(not file.startswith("/etc/") for file in deploys[undo]):
        lines.append(f"  {api['app']} is restarted")
    channel.say([*lines, "  the migration and the npm packages stay: a rollback does not undo them"])
    yield Step(remote.rollback.roll_back, undo=undo, api=api, keys=KEYS)

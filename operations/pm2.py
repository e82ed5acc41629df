"""The API under pm2: it runs what is on disk, and stays up."""

from collections.abc import Generator, Iterable, Sequence

from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.pm2
import remote.restart
from channel import Channel, Step
from facts.look import ask
from remote.pm2 import NEVER
from remote.readings import Api, Running
from rules import KEYS
from settings import BadInput

STATUS = {
    "suspended": "it is suspended by a signal (SIGSTOP)",
    "silent": "it does not listen on its port",
    "unproved": "somebody has just started it on what a deploy wrote, and it may not survive that",
}


def reasons(now: Running, planned: Sequence[str]) -> list[str]:
    """Why the API must be restarted. The plan counts what is still to be written; in the run that is done by now."""
    why = []
    if now["status"] != "online":
        why.append(STATUS.get(now["status"], f"pm2 says {now['status']}"))
    elif now["stale"]:
        why.append("it is older than its files")
    if now["shadowed"]:
        why.append(f"pm2's own environment overrides {', '.join(now['shadowed'])} of .env")
    return [*why, *planned]


def check(now: Running, changing: Iterable[str], app: str) -> None:
    """Raises BadInput where a key that .env is to get is the ecosystem file's to say."""
    if own := [key for key in changing if key in now["fixed"]]:
        raise BadInput(f"pm2: the ecosystem file sets {', '.join(own)} for {app}, {NEVER}")


@operation()
def current(api: Api) -> Generator[Step[...]]:
    now = ask(host, remote.pm2.read, api=api, keys=KEYS)
    channel = Channel.of(host)
    why = reasons(now, channel.ahead("api"))
    if not why:
        host.noop("pm2: the API runs what is on disk")
        return
    channel.say([f"pm2: restart {api['app']}: {'; '.join(filter(None, [*why, now['ending']]))}"])
    yield Step(remote.restart.restart, api=api, keys=KEYS)

"""The API under pm2: it runs what is on disk, and stays up."""

from collections.abc import Generator, Mapping, Sequence

from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.pm2
import remote.restart
from channel import Channel, Step
from facts.look import ask
from operations import dotenv
from remote.pm2 import NEVER
from remote.readings import Api, Running, Secrets
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


def check(now: Running, secrets: Secrets, values: Mapping[str, str], app: str) -> None:
    """Raises BadInput where a key that .env is to get is the ecosystem file's to say; where a value that pm2 alone has
    would be lost; and where the API never reads what is written. `values` are the operator's."""
    if own := [key for key in dotenv.changes(secrets, values).set if key in now["fixed"]]:
        raise BadInput(f"pm2: the ecosystem file sets {', '.join(own)} for {app}, {NEVER}")
    if lost := [key for key in now["held"] if key not in values and secrets["keys"][key]["kind"] != "set"]:
        raise BadInput(
            f"pm2: {app} has {', '.join(lost)} from pm2 alone; .env has no usable value: first write KEY='value' "
            f"into .env on the host, as it is in {now['held_in']}"
        )
    if now["folder"]:
        raise BadInput(
            f"pm2: {app} runs in {now['folder']}, and reads .env there: correct app_dir, or start it from its own "
            "folder (bin/verify prints how)"
        )


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

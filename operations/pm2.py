"""The API under pm2: it runs what is on disk, and stays up."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra.api.operation import operation
from pyinfra.context import host

from facts.look import Look, Wanted, look
from operations import dotenv, npm, source
from operations.step import Step, say


def reasons(now: Look, wanted: Wanted) -> list[str]:
    """Why the API must be restarted. The plan counts what is still to be written; in the run that is done by now."""
    why = []
    if now.pm2.status != "online":
        why.append(f"pm2 says {now.pm2.status}")
    elif now.pm2.stale:
        why.append("it is older than its files")
    if now.pm2.shadowed:
        why.append(f"pm2's own record hides {', '.join(now.pm2.shadowed)} of .env")
    ahead = {
        ".env": dotenv.changes(now.dotenv, wanted.credentials),
        "packages": npm.missing(now.npm, wanted.settings.packages),
        "source": source.changes(now.source, wanted.settings),
    }
    why += [f"{name} will change" for name, change in ahead.items() if change]
    return why


@operation()
def current(wanted: Wanted) -> Generator[Step]:
    now = look(host, wanted)
    why = reasons(now, wanted)
    if not why:
        host.noop("pm2: the API runs what is on disk")
        return
    say(host, [f"pm2: restart {wanted.settings.api_app}: {'; '.join(why)}"])
    yield Step("pm2", "restartApi", wanted, status=now.pm2.status, shadowed=now.pm2.shadowed)

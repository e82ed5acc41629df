"""Before the first step: can every step do its work here?

With `-y` pyinfra 3.10 asks an operation for its commands only when the ones before it are done. So what an operation
refuses is refused here too, while nothing is changed.
"""

from typing import Any

from pyinfra.api.host import Host

from channel import Channel
from credentials import Credentials
from facts.look import expect_all, sound
from operations import dotenv, migration, nginx, source
from settings import Settings


def check(host: Host, settings: Settings, own: Credentials, site: nginx.Site) -> None:
    """Raises HostUnfit or BadInput, in one line."""
    Channel.of(host).lock_wait = settings.lock_wait
    if own.told:
        host.log(f"secrets: {own.told}")
    expect_all(host, settings, own)
    now: dict[str, Any] = {noun: sound(host, noun) for noun in Channel.of(host).look()}
    migration.check(now["migration"], host.name)
    dotenv.changes(now["dotenv"], own.keys)
    source.changes(now["source"], settings.health_check)
    nginx.desired(now["nginx"], site)

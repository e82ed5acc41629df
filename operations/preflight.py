"""Before the first step: can every step do its work here?

With `-y` pyinfra 3.10 asks an operation for its commands only when the ones before it are done. So what an operation
refuses is refused here too, while nothing is changed.
"""

import json
from dataclasses import asdict
from hashlib import sha256
from typing import Any

from pyinfra.api.host import Host

from channel import Channel, bundle, stable
from credentials import Credentials
from facts.look import expect_all, sound
from operations import migration, nginx, pm2, source
from settings import BadInput, Settings


def check(host: Host, settings: Settings, own: Credentials, site: nginx.Site) -> None:
    """Raises HostUnfit or BadInput, in one line."""
    Channel.of(host).app, Channel.of(host).lock_wait = settings.api_app, settings.lock_wait
    if own.told:
        host.log(f"secrets: {own.told}")
    expect_all(host, settings, own)
    now: dict[str, Any] = {noun: sound(host, noun) for noun in Channel.of(host).look()}
    migration.check(now["migration"], host.name, own.pooled)
    pm2.check(now["pm2"], now["dotenv"], own.keys, settings.api_app)
    source.changes(now["source"], settings.health_check)
    nginx.desired(now["nginx"], site)
    _require_plan(host, settings, now)


def _require_plan(host: Host, settings: Settings, now: dict[str, Any]) -> None:
    """Raises BadInput where this is not the plan that was approved. That follows from bundle, settings and host."""
    how = {name: value for name, value in asdict(settings).items() if name not in ("plan", "lock_wait", "verify")}
    whole = json.dumps([bundle(), how, stable(now)], sort_keys=True, default=str)
    Channel.of(host).plan = plan = f"p{sha256(whole.encode()).hexdigest()[:16]}"  # with a letter: never a number
    if settings.plan and plan not in settings.plan.split(","):
        raise BadInput(
            f"{host.name}: something has changed since plan {settings.plan} was made; see the new plan with --dry"
        )

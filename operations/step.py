"""A step: the one remote command that makes one change. It completes, or leaves the old state and says why."""

from __future__ import annotations

from typing import Any

from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State
from pyinfra.connectors.util import CommandOutput

import remote
import session
from facts.look import Wanted, forget

_SHARED = (
    "facts/look.js",
    "facts/dotenv.js",
    "facts/nginx.js",
    "facts/pm2.js",
    "facts/migration.js",
    "operations/step.js",
)
_NEEDS = {"pm2": ("nginx", "waiting_room"), "rollback": ("nginx", "waiting_room", "pm2")}


class Step(StringCommand):
    """Runs the function `entry` of operations/<noun>.js on the host with `data` added to what is wanted."""

    def __init__(self, noun: str, entry: str, wanted: Wanted, **data: Any) -> None:
        settings = wanted.settings
        whole = {
            **wanted.data(),
            "deploy": session.DEPLOY,
            "api_port": settings.api_port,
            "waiting_room": settings.waiting_room,
            "start_timeout": settings.start_timeout,
            "settle_time": settings.settle_time,
            "lock_timeout": settings.lock_timeout,
            "statement_timeout": settings.statement_timeout,
            **data,
        }
        programs = (*_SHARED, *(f"operations/{each}.js" for each in (*_NEEDS.get(noun, ()), noun)))
        stdin = remote.stdin(programs, f"step({entry})", whole)
        super().__init__(*remote.NODE.bits, _stdin=stdin)

    def execute(self, state: State, host: Host, connector_arguments: Any) -> tuple[bool, CommandOutput]:
        forget(host)
        done: tuple[bool, CommandOutput] = super().execute(state, host, connector_arguments)
        if done[0]:
            session.changed(host)
        return done


def say(host: Host, lines: list[str]) -> None:
    """What changes, one aligned line each, in the plan and again in the run."""
    for line in lines:
        host.log(f"  {line}")

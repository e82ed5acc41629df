"""One look at the host gathers every fact: one channel, one process, the parts side by side.

A look is kept until something is changed (`forget`) or it is MAX_AGE old: between the plan and the operator's Enter
anything may happen on the host.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from gevent import get_hub
from paramiko.ssh_exception import SSHException
from pyinfra import logger
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.host import Host

import remote
import session
from credentials import KEYS, MIN_JWT_SECRET, PLACEHOLDERS, PUBLIC_DEFAULTS, Credentials
from facts.backups import Backups
from facts.dotenv import Dotenv
from facts.migration import COLUMNS, NAME, Migration
from facts.nginx import Nginx
from facts.npm import Npm
from facts.pm2 import Pm2
from facts.source import ROUTES, SESSION_POOL, Source
from settings import Settings

MAX_AGE = 5  # seconds
TIMEOUT = 60  # seconds, for a host that hangs
LOCKED = 75  # exit code: somebody else deploys; EX_TEMPFAIL of sysexits.h

NOUNS = ("look", "dotenv", "npm", "source", "migration", "nginx", "pm2", "backups")
REMEDY = {
    "node": "install Node.js 20 or newer, or put it on the PATH of a non-interactive ssh",
    "npm": "apt-get install npm",
    "nginx": "apt-get install nginx",
    "pm2": "npm install --global pm2",
    "psql": "apt-get install postgresql-client",
}


@dataclass(frozen=True)
class Wanted:
    """What the operator asked of one host: the knobs and the credentials."""

    settings: Settings
    credentials: Credentials

    def data(self) -> dict[str, Any]:
        """For the programs on the host, as JSON."""
        settings, credentials = self.settings, self.credentials
        return {
            "app_dir": settings.app_dir,
            "api_app": settings.api_app,
            "nginx_site": settings.nginx_site,
            "domain": settings.domain,
            "packages": settings.packages,
            "keys": KEYS,
            "wanted": dict(credentials.keys),
            "placeholders": PLACEHOLDERS,
            "min_jwt_secret": MIN_JWT_SECRET,
            "public_defaults": PUBLIC_DEFAULTS,
            "source_files": (ROUTES, SESSION_POOL),
            "migration": NAME,
            "columns": COLUMNS,
            "database": credentials.database(),
        }


@dataclass(frozen=True)
class Look:
    dotenv: Dotenv
    npm: Npm
    source: Source
    migration: Migration
    nginx: Nginx
    pm2: Pm2
    backups: Backups


# pyinfra tells these in one line; in the run, gevent 26 would print a traceback before it.
get_hub().NOT_ERROR = (*get_hub().NOT_ERROR, PyinfraError)


class HostUnfit(PyinfraError):
    """The host cannot be read or lacks something. The message names the remedy."""


_looks: dict[str, tuple[float, Look]] = {}  # by the host's name: pyinfra hands out proxies of one host


def look(host: Host, wanted: Wanted) -> Look:
    """What the host is now. Raises HostUnfit, in one line."""
    made, known = _looks.get(host.name, (0.0, None))
    without_lock = session.is_applying(host) and not session.is_open(host)
    if known is None or without_lock or time.monotonic() - made > MAX_AGE:
        known = _look(host, wanted)
        _looks[host.name] = (time.monotonic(), known)
    return known


def forget(host: Host) -> None:
    """Something was changed on the host."""
    _looks.pop(host.name, None)


def _look(host: Host, wanted: Wanted) -> Look:
    found = _run(host, wanted)
    if "locked" in found:
        other = {"who": "somebody", "from": "somewhere", "since": "just now", **found["locked"]}  # not written down yet
        message = f"{other['who']} from {other['from']} has been deploying since {other['since']}"
        host.log_styled(f"{message}; wait, or set lock_wait (seconds)", fg="red", log_func=logger.error)
        raise SystemExit(LOCKED)
    app_dir = wanted.settings.app_dir
    if found["missing"]:
        tool = found["missing"][0]
        raise HostUnfit(f"{tool} is not installed on {host.name}: {REMEDY[tool]}")
    if not found["app"]:
        raise HostUnfit(f"{app_dir}/package.json is not on {host.name}: deploy the application first, or set app_dir")
    for noun in NOUNS[1:]:
        if "error" in found[noun]:
            raise HostUnfit(f"{noun} on {host.name}: {found[noun]['error']}{_HINTS.get(noun, '')}")
    return Look(
        dotenv=Dotenv.of(found["dotenv"]),
        npm=Npm.of(found["npm"]),
        source=Source.of(found["source"]),
        migration=Migration.of(found["migration"]),
        nginx=Nginx.of(found["nginx"]),
        pm2=Pm2.of(found["pm2"]),
        backups=Backups.of(found["backups"]),
    )


def _run(host: Host, wanted: Wanted) -> dict[str, Any]:
    """Run the look; the first one of a run that changes the host takes the lock before it looks, and keeps it."""
    programs = tuple(f"facts/{noun}.js" for noun in NOUNS)
    data = wanted.data()
    state = host.state
    if session.is_applying(host) and not session.is_open(host):
        data["session"] = session.about(wanted.settings.lock_wait)
        programs = (*programs, "operations/step.js", "operations/session.js")
        program = remote.stdin(programs, "session", data)
        with _connected(host):
            line, errors = session.start(host, program, TIMEOUT + wanted.settings.lock_wait, _sudo(host))
        lines, complaints = [line] if line else [], errors.splitlines()
    else:
        with _connected(host):
            _, output = host.run_shell_command(
                remote.NODE,
                print_output=state.print_fact_output,
                print_input=state.print_fact_input,
                _stdin=remote.stdin(programs, "look", data),
                _timeout=TIMEOUT,
                **_sudo(host),
            )
        lines, complaints = output.stdout_lines, output.stderr_lines
    if not lines:
        raise HostUnfit(_why(complaints))
    found: dict[str, Any] = json.loads(lines[-1])
    return found


@contextmanager
def _connected(host: Host) -> Iterator[None]:
    """pyinfra 3.10 tells in one line that the connection is gone only where a step runs."""
    try:
        yield
    except (SSHException, EOFError, OSError) as error:
        raise HostUnfit(f"the connection to {host.name} was lost ({error or 'closed'}); run again") from None


_HINTS = {
    "nginx": " (nginx refuses its configuration as it is: mend it until `nginx -t` passes, then run again)",
    "migration": " (is PostgreSQL running? systemctl status postgresql; a database elsewhere: set DATABASE_URL)",
    "dotenv": " (is the application installed? `npm ci` in its folder)",
}


def _why(complaints: list[str]) -> str:
    if any("node: not found" in line for line in complaints):
        return f"node is not installed: {REMEDY['node']}"
    lines = [line for line in complaints if line.strip()]
    return f"cannot be read: {lines[-1].strip() if lines else 'no answer; run again'}"


def _sudo(host: Host) -> dict[str, Any]:
    """pyinfra applies `--sudo` to facts and operations; this is neither, so it is passed on."""
    config = host.state.config
    return {"_sudo": config.SUDO, "_sudo_user": config.SUDO_USER} if config.SUDO else {}

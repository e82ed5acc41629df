"""The knobs of group_data/all.py: their types, units and checks.

Bad input is refused here in one line, before any command runs on a host.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

# pyinfra shows its own errors in one line. Importing it takes 0.2 s, which bin/verify does not have.
if TYPE_CHECKING or "pyinfra" in sys.modules:
    from pyinfra.api.exceptions import PyinfraError
else:
    PyinfraError = Exception

# pyinfra 3.10 keeps Python from writing byte code: each run would compile the modules after this one anew, 0.03 s.
sys.dont_write_bytecode = bool(sys.flags.dont_write_bytecode)

# A word that is safe as a file name, as a pm2 name and in an nginx directive.
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PACKAGE = re.compile(r"(@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*")
_URL = re.compile(r"(https://[A-Za-z0-9.-]+|http://127\.0\.0\.1)(:\d+)?(/[A-Za-z0-9._-]+)*")
_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
_ADDRESS = re.compile(r"[0-9a-fA-F.:]*")


class BadInput(PyinfraError):
    """What the operator gave cannot be used. The message names the thing and the remedy, in one line."""


@dataclass(frozen=True)
class Settings:
    """The knobs of one host. Times are seconds.

    Raises BadInput from `load` for an unknown knob, a missing one, or a value out of its range.
    """

    app_dir: str
    api_app: str
    api_port: int
    domain: str
    nginx_site: str
    packages: dict[str, str] = field(hash=False)  # a dict has none; operations/nginx.py keeps plans by their settings
    health_check: bool
    start_timeout: int
    settle_time: int
    lock_wait: int
    lock_timeout: int
    statement_timeout: int
    verify: bool
    undo: str
    yclients_api: str
    verify_address: str
    verify_ca: str

    @property
    def waiting_room(self) -> int:
        """The port where requests wait while the API restarts: operations/waiting_room.js."""
        return self.api_port + 10000 if self.api_port < 50000 else self.api_port - 10000

    @classmethod
    def load(cls, data: dict[str, Any]) -> Settings:
        """From pyinfra's merged host data. `ssh_…` and `_…` are pyinfra's own and are passed over."""
        own = {key: value for key, value in data.items() if not key.startswith(("ssh_", "_"))}
        names = [field.name for field in fields(cls)]
        for name in own:
            if name not in names:
                raise BadInput(f"settings: {name!r} is not a knob; the knobs are: {', '.join(names)}")
        for name in names:
            if name not in own:
                raise BadInput(f"settings: {name!r} is missing; group_data/all.py has its default")
            valid, expected = _CHECKS[name]
            if not valid(own[name]):
                raise BadInput(f"settings: {name} must be {expected}, not {own[name]!r}")
        return cls(**own)


def _integer(low: int, high: int) -> tuple[Callable[[Any], bool], str]:
    def valid(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return valid, f"a whole number from {low} to {high}"


def _text(pattern: re.Pattern[str], expected: str) -> tuple[Callable[[Any], bool], str]:
    return lambda value: isinstance(value, str) and bool(pattern.fullmatch(value)), expected


def _packages(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and _PACKAGE.fullmatch(name) and isinstance(wanted, str) and wanted.strip()
        for name, wanted in value.items()
    )


_FLAG: tuple[Callable[[Any], bool], str] = (lambda value: isinstance(value, bool), "True or False")

_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "app_dir": _text(_PATH, "an absolute path without spaces"),
    "api_app": _text(_WORD, "a pm2 application's name"),
    "api_port": _integer(1, 65535),
    "domain": _text(_WORD, "a domain name"),
    "nginx_site": _text(_WORD, "a file name below /etc/nginx/sites-available"),
    "packages": (_packages, "npm package names, each with a version range"),
    "health_check": _FLAG,
    "start_timeout": _integer(1, 600),
    "settle_time": _integer(0, 120),
    "lock_wait": _integer(0, 3600),
    "lock_timeout": _integer(1, 60),
    "statement_timeout": _integer(1, 3600),
    "verify": _FLAG,
    "undo": _text(re.compile(r"(\d{8}T\d{6}Z)?"), "a deploy's UTC time like 20261231T235959Z, or empty for the last"),
    "verify_address": _text(_ADDRESS, "an IP address, or empty"),
    "verify_ca": _text(re.compile(rf"({_PATH.pattern})?"), "an absolute path, or empty"),
    "yclients_api": _text(_URL, "an https:// address without a final slash (http:// only for 127.0.0.1)"),
}

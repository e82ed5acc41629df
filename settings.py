"""The settings of group_data/all.py: their types, units and checks.

Bad input is refused here in one line, before any command runs on a host.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self

from remote import wire
from remote.readings import Api

# pyinfra shows its own errors in one line. Importing it takes 0.2 s, which bin/verify does not have.
if TYPE_CHECKING or "pyinfra" in sys.modules:
    from pyinfra.api.exceptions import PyinfraError
else:
    PyinfraError = Exception

# A word that is safe as a file name, as a pm2 name and in an nginx directive.
_WORD = r"[A-Za-z0-9][A-Za-z0-9._-]*"
_PACKAGE = r"(@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*"
_URL = r"(https://[A-Za-z0-9.-]+|http://127\.0\.0\.1)(:\d+)?(/[A-Za-z0-9._-]+)*"
_PATH = r"(/[A-Za-z0-9._-]+)+"
_SERVER = r"[A-Za-z0-9][A-Za-z0-9.-]*"
# No user in https://: that is where tokens are put, and git takes the URL as an argument
_SOURCE = (
    rf"(https://{_SERVER}(:\d+)?/[\w./~-]+|ssh://(\w+@)?{_SERVER}(:\d+)?/[\w./~-]+"
    rf"|file:///[\w./~-]+|\w+@{_SERVER}:[\w./~-]+|[/.~][^\n\0]*)?"
)


class BadInput(PyinfraError):
    """What the operator gave cannot be used. The message names the thing and the remedy, in one line."""

    def __init__(self, message: str) -> None:
        super().__init__(wire.printable(message))  # it may quote the host's files


def _setting(valid: Callable[[Any], object], expected: str) -> Any:
    return field(metadata={"valid": valid, "expected": expected})


def _integer(low: int, high: int) -> Any:
    return _setting(lambda value: type(value) is int and low <= value <= high, f"a whole number from {low} to {high}")


def _text(pattern: str, expected: str) -> Any:
    return _setting(lambda value: isinstance(value, str) and re.fullmatch(pattern, value), expected)


def _flag() -> Any:
    return _setting(lambda value: isinstance(value, bool), "True or False")


def _places(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(
        isinstance(each, str) and re.fullmatch(r"[A-Za-z0-9.-]+:\d{1,5}", each) for each in value
    )


def _packages(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and re.fullmatch(_PACKAGE, name) and isinstance(wanted, str) and wanted.strip()
        for name, wanted in value.items()
    )


@dataclass(frozen=True)
class Settings:
    """The settings of one host, and what each may be. Times are seconds."""

    app_dir: str = _text(_PATH, "an absolute path without spaces")
    api_app: str = _text(_WORD, "a pm2 application's name")
    api_port: int = _integer(1, 65535)
    app_source: str = _text(_SOURCE, "a git URL without a password, or a folder that begins with /, ./, ../ or ~/")
    domain: str = _text(_WORD, "a domain name")
    nginx_site: str = _text(_WORD, "a file name below /etc/nginx/sites-available")
    change_proxy_pass: bool = _flag()
    packages: Mapping[str, str] = _setting(_packages, "npm package names, each with a version range")
    health_check: bool = _flag()
    start_timeout: int = _integer(1, 600)
    settle_time: int = _integer(0, 120)
    lock_wait: int = _integer(0, 3600)
    lock_timeout: int = _integer(1, 60)
    statement_timeout: int = _integer(1, 3600)
    database_ca: str = _text(rf"({_PATH})?", "an absolute path on the host, or empty")
    verify: bool = _flag()
    undo: str = _text(r"(\d{8}T\d{6}Z)?", "a deploy's UTC time like 20261231T235959Z, or empty for the last")
    plan: str = _text(
        r"(p[0-9a-f]{16}(,p[0-9a-f]{16})*)?", "the plan names that --dry --json prints, separated by commas, or empty"
    )
    yclients_api: str = _text(_URL, "an https:// address without a trailing slash (http:// only for 127.0.0.1)")
    outbound: Sequence[str] = _setting(_places, "a list of places like api.example.org:443")
    verify_address: str = _text(r"[0-9a-fA-F.:,]*", "IP addresses separated by commas, or empty")
    verify_ca: str = _text(rf"({_PATH})?", "an absolute path, or empty")

    @property
    def dotenv(self) -> str:
        return f"{self.app_dir}/.env"

    @property
    def api(self) -> Api:
        """What a restart must know."""
        return {
            "app": self.api_app,
            "app_dir": self.app_dir,
            "port": self.api_port,
            "packages": list(self.packages),
            "start_timeout": self.start_timeout,
            "settle_time": self.settle_time,
        }

    @classmethod
    def load(cls, data: dict[str, Any]) -> Self:
        """From pyinfra's merged host data; `ssh_…` and `_…` are pyinfra's own. Raises BadInput."""
        own = {key: value for key, value in data.items() if not key.startswith(("ssh_", "_"))}
        known = {each.name: each.metadata for each in fields(cls)}
        for name in own:
            if name not in known:
                raise BadInput(f"settings: there is no setting {name!r}; the settings are: {', '.join(known)}")
        for name, setting in known.items():
            if name not in own:
                raise BadInput(f"settings: {name!r} is missing; group_data/all.py has its default")
            if not setting["valid"](own[name]):
                given = re.sub("//[^/]*@", "//…@", repr(own[name]))  # a token may stand there
                raise BadInput(f"settings: {name} must be {setting['expected']}, not {given}")
        return cls(**own)

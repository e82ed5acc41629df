"""The three packages: what is missing is installed, nothing else moves."""

from __future__ import annotations

from collections.abc import Generator

from pyinfra.api.operation import operation
from pyinfra.context import host
from semantic_version import NpmSpec, Version

from facts.look import Wanted, look
from facts.npm import Npm
from operations.step import Step, say


def missing(now: Npm, ranges: dict[str, str]) -> list[dict[str, str | bool]]:
    """What to install: name, range, and whether the application's lock has a version that fits."""
    install: list[dict[str, str | bool]] = []
    for name, package in now.packages.items():
        wanted = package.range or ranges[name]
        if package.complete and satisfies(package.version, wanted):
            continue
        install.append({"name": name, "range": wanted, "useLock": satisfies(package.locked, wanted)})
    return install


def satisfies(version: str | None, wanted: str) -> bool:
    """npm's own rule. A range that is none (a tag, a URL, a git address) is satisfied by any installed version."""
    if version is None:
        return False
    try:
        return Version(version) in NpmSpec(wanted)
    except ValueError:
        return True


@operation()
def packages(wanted: Wanted) -> Generator[Step]:
    now = look(host, wanted).npm
    install = missing(now, wanted.settings.packages)
    if not install:
        host.noop("npm: the packages are there")
        return
    for package in install:
        old = now.packages[str(package["name"])]
        state = "missing" if old.version is None else f"{old.version}{'' if old.complete else ', incomplete'}"
        say(host, [f"npm: {package['name']} {package['range']} (now {state})"])
    yield Step("npm", "installPackages", wanted, install=install)

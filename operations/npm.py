"""The three packages: what is missing is installed, nothing else moves."""

from __future__ import annotations

import re
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
    """npm's own rule. A range that is none (a tag, a URL, a git address) is satisfied by any installed version.

    semantic_version 2.10 differs from npm's semver 7 in the first two of these, and knows no `>= 1.2.3`.
    """
    if version is None:
        return False
    if "||" in wanted:
        return any(satisfies(version, either) for either in wanted.split("||"))
    wanted = re.sub(r"([<>=^~])\s+", r"\1", wanted)
    exact = re.fullmatch(r"[=v\s]*(\d+\.\d+\.\d+-\S+)\s*", wanted)
    wanted = re.sub(r"~(\d+)\.(\d+)(\.\d+-\S+)", _between, wanted)
    try:
        found = Version(version)
        if exact:
            return bool(found == Version(exact[1]))
        # a prerelease fits only where the range names one of the same version
        return found in NpmSpec(wanted) and (not found.prerelease or f"{found.truncate()}-" in wanted)
    except ValueError:
        return True


def _between(tilde: re.Match[str]) -> str:
    major, minor, rest = tilde.groups()
    return f">={major}.{minor}{rest} <{major}.{int(minor) + 1}.0"


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

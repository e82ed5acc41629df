"""The packages that the application needs: what is missing is installed, nothing else moves."""

from collections.abc import Generator, Mapping

import nodesemver
from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.npm
from channel import Channel, Step
from facts.look import ask
from remote.readings import Package

ANY = ("", "*")  # in a package.json: any version to npm 9, to node-semver any but a prerelease


def missing(now: Mapping[str, Package], ranges: Mapping[str, str]) -> dict[str, str]:
    """What to install, each in its range: that of the application's package.json, else the one in `ranges`."""
    wanted = {name: ranges[name] if _is_open(package) else package["range"] or "" for name, package in now.items()}
    return {name: wanted[name] for name, package in now.items() if not _fits(package, wanted[name])}


def _fits(package: Package, wanted: str) -> bool:
    is_any = package["range"] is not None and _is_open(package)
    return not package["cause"] and (is_any or satisfies(package["version"], wanted))


def _is_open(package: Package) -> bool:
    return (package["range"] or "").strip() in ANY


def satisfies(version: str | None, wanted: str) -> bool:
    """npm's own rule (node-semver). What is not a semver range (a tag, a URL, a git address) takes any version."""
    if version is None:
        return False
    try:
        return nodesemver.valid_range(wanted, False) is None or bool(nodesemver.satisfies(version, wanted, False))
    except ValueError:  # what is installed has no version
        return False


@operation()
def packages(app: str, app_dir: str, ranges: Mapping[str, str]) -> Generator[Step[...]]:
    """`ranges`: by package, the range where the application lists none. `app`: the pm2 app that loads them."""
    now = ask(host, remote.npm.read, app=app, app_dir=app_dir, packages=list(ranges))
    install = missing(now, ranges)
    if not install:
        host.noop("npm: the packages are there")
        return
    lines = []
    for name, wanted in install.items():
        old = now[name]
        broken = f", does not load: {old['cause']}" if old["cause"] else ""
        state = "missing" if old["version"] is None else f"{old['version']}{broken}"
        lines.append(f"npm: {name} {wanted} (now {state})")
    Channel.of(host).say(lines, "api", "packages")
    yield Step(remote.npm.install, app=app, app_dir=app_dir, ranges=install, packages=list(ranges))

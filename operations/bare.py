"""What bootstrap.py does that no operation of pyinfra's can: refuse in time, and keep passwords out of sight."""

import json
from collections.abc import Generator
from pathlib import Path

from pyinfra.api.command import StringCommand
from pyinfra.api.host import Host
from pyinfra.api.operation import operation
from pyinfra.context import host
from pyinfra.facts.server import Command

import remote.bare
from channel import PYTHON, Channel, HostUnfit, message
from facts.bare import Bare, BareHost
from settings import BadInput, Settings

NEEDED = ("package.json", "package-lock.json", "ecosystem.config.js")


def check(host: Host, settings: Settings) -> Bare:
    """Is there nothing to break? Raises BadInput or HostUnfit, in one line."""
    source = settings.app_source
    if not source:
        raise BadInput('app_source is not set: put "app_source": a git URL or a folder, into your inventory')
    if is_folder(source) and (lacking := [each for each in NEEDED if not (folder(source) / each).is_file()]):
        raise BadInput(f"app_source: {folder(source)} has no {', '.join(lacking)}: is it the application's folder?")
    now = host.get_fact(BareHost, app_dir=settings.app_dir, domain=settings.domain)
    if not now["apt"]:
        raise HostUnfit(f"{host.name} has no apt-get: bootstrap.py is for Debian 12 and 13")
    if now["made"] == [settings.app_dir]:
        return now
    if now["folder"]:
        raise HostUnfit(
            f"{settings.app_dir} on {host.name} is not empty, and bootstrap.py did not make it: it is left alone. "
            "deploy.py is for an application that is there"
        )
    busy = {"80", "443", "5432", "6379", str(settings.api_port)} & {*now["port"]}
    if busy or now["made"]:
        why = f"something listens on port {', '.join(sorted(busy))}" if busy else f"it was made for {now['made'][0]}"
        raise HostUnfit(f"{host.name} is not a bare host: {why}; nothing was changed")
    return now


def is_folder(source: str) -> bool:
    return source.startswith(("/", ".", "~"))


def folder(source: str) -> Path:
    return Path(source).expanduser().resolve()


def ssh_ports(host: Host) -> list[str]:
    """22, and the one that this connection came in by, as sshd sees it; sudo would hide that."""
    came_by = host.get_fact(Command, "echo ${SSH_CONNECTION##* }", _sudo=False) or ""
    return sorted({"22", *came_by.split()})


def self_signed(now: Bare, domain: str) -> str:
    """Why certbot cannot be asked yet; empty where it can."""
    there = ", ".join(dict.fromkeys(now["domain"])) or "no address"
    points_here = {*now["domain"]} & {*now["own"]}
    return "" if points_here else f"{domain} points to {there}, and this host is {', '.join(now['own'])}"


@operation()
def passwords(app_dir: str, port: int, database: bool) -> Generator[StringCommand]:
    """`.env` where there is none, and what redis and, with `database`, PostgreSQL must know of it."""
    first = {"NODE_ENV": "production", "PORT": str(port)}

    def ask(apply: bool) -> str:
        return message(remote.bare.passwords, app_dir=app_dir, first=first, database=database, apply=apply)

    fine, output = host.run_shell_command(PYTHON, **{**Channel.of(host).arguments(), "_stdin": ask(apply=False)})
    lacking = json.loads(output.stdout) if fine else ["passwords"]
    if fine and not lacking:
        host.noop("passwords: none to set")
        return
    yield StringCommand(*PYTHON.bits, _stdin=ask(apply=True))

"""The three secrets in the application's `.env`; every other byte of it stays."""

import base64
import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass

from pyinfra.api.operation import operation
from pyinfra.context import host

import remote.dotenv
import remote.dotenv_edit
from channel import Channel, Step
from credentials import Secret, quoted
from facts.look import ask
from remote.readings import Secrets
from rules import DOTENV, JWT_SECRET, KEYS, malformed
from settings import BadInput


@dataclass(frozen=True)
class Changes:
    """Which keys change and why, and which wait for the operator. No values."""

    set: dict[str, str]
    once: list[str]
    pending: list[str]

    def __bool__(self) -> bool:
        return bool(self.set or self.once)


def changes(now: Secrets, values: Mapping[str, str]) -> Changes:
    """What `.env` must become. A token missing here is left as the host has it. Raises BadInput."""
    for name in now["public"]:
        raise BadInput(
            f"{name}: your own value stands in the application's source, so anybody can read it; "
            "use `openssl rand -base64 32`, or leave it out and deploy makes one"
        )
    change: dict[str, str] = {}
    once, pending = [], []
    for name in KEYS:
        key = now["keys"][name]
        right = key["equal"] if name in values else key["kind"] == "set"
        if right and key["times"] > 1:
            once.append(name)
        elif name in values and not right:
            if why := malformed(name, values[name]):
                raise BadInput(f"{name}: your value {why}; leave it out until you have the right one")
            older = f" by the value that it had before deploy {key['before']}: is yours up to date?"
            how = older if key["before"] else ""
            change[name] = "is added" if key["kind"] == "absent" else f"is replaced{how}"
        elif name == JWT_SECRET and not right:
            anew = f"is replaced by a new one, as the old one is {key['kind']}"
            change[name] = "is made" if key["kind"] == "absent" else anew
        elif not right:
            pending.append(name)
    return Changes(change, once, pending)


@operation()
def secrets(path: str, values: Mapping[str, str], app: str) -> Generator[Step[...]]:
    """`values` are the operator's, by key (rules.KEYS); `app` is the pm2 app that reads the file at its start.

    A JWT_SECRET is made where neither the operator nor the host has one. Give the operation a `name`, or each value as
    a credentials.Secret: pyinfra prints the arguments of an operation without a name.
    """
    now = ask(host, remote.dotenv.read, path=path, values=values, rules=DOTENV)
    change = changes(now, values)
    channel = Channel.of(host)
    channel.pending = change.pending
    for name in change.pending:
        host.log(f"  pending: {name} (put it into your .env or environment when it comes, and run again)")
    if not change:
        host.noop(".env: the keys are as they should be")
        return
    lines = [f".env: {name} {why}" for name, why in change.set.items()]
    lines += [f".env: {name} was there more than once" for name in change.once]
    channel.say(lines, "api", ".env")
    new = {name: values[name] if name in values else _new_secret() for name in change.set}
    old = "".join(f"{name}: {now['keys'][name]['kind']}\n" for name in new)
    channel.diff(path, old.encode(), "".join(f"{name}: set, {len(new[name])} characters\n" for name in new).encode())
    literals = {name: quoted(name, value) for name, value in new.items()}
    yield Step(
        remote.dotenv_edit.write,
        path=path,
        app=app,
        values=new,
        literals=literals,
        once=change.once,
        expected=now["sha256"],
    )


def _new_secret() -> Secret:
    """32 random bytes, base64: 44 characters."""
    return Secret(base64.b64encode(os.urandom(32)).decode())

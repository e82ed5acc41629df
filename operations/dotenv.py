"""The three secrets in the application's `.env`; every other byte of it stays."""

from __future__ import annotations

import base64
import os
from collections.abc import Generator
from dataclasses import dataclass

from pyinfra.api.operation import operation
from pyinfra.context import host

from credentials import APP_ID, JWT_SECRET, KEYS, PARTNER_TOKEN, Credentials, Secret, quoted
from facts.dotenv import Dotenv
from facts.look import Wanted, look
from operations.step import Step, say

TOKENS = (PARTNER_TOKEN, APP_ID)


@dataclass(frozen=True)
class Changes:
    """Which keys change and why, and which wait for the operator. No values."""

    set: dict[str, str]
    once: list[str]
    pending: list[str]

    def __bool__(self) -> bool:
        return bool(self.set or self.once)


def changes(now: Dotenv, credentials: Credentials) -> Changes:
    """What `.env` must become. A token missing here is left as the host has it."""
    change: dict[str, str] = {}
    once, pending = [], []
    for name in KEYS:
        key = now.keys[name]
        if name in credentials.keys:
            if not key.equal:
                change[name] = "added" if key.kind == "absent" else "replaced"
            elif key.times > 1:
                once.append(name)
        elif key.kind == "set":
            if key.times > 1:
                once.append(name)
        elif name == JWT_SECRET:
            change[name] = "made" if key.kind == "absent" else f"made anew, the old one is {key.kind}"
        else:
            pending.append(name)
    return Changes(change, once, pending)


@operation()
def secrets(wanted: Wanted) -> Generator[Step]:
    now = look(host, wanted).dotenv
    change = changes(now, wanted.credentials)
    for name in change.pending:
        host.log(f"  pending: {name} (put it into your .env or environment when it comes, and run again)")
    if not change:
        host.noop(".env: the keys are as they should be")
        return
    say(host, [f".env: {name} {why}" for name, why in change.set.items()])
    say(host, [f".env: {name} was there more than once" for name in change.once])
    own = wanted.credentials.keys
    values = {name: own[name] if name in own else _new_secret() for name in change.set}
    literals = {name: quoted(name, value) for name, value in values.items()}
    yield Step("dotenv", "writeDotenv", wanted, expected=now.sha256, values=values, literals=literals, once=change.once)


def _new_secret() -> Secret:
    """32 random bytes, base64: 44 characters."""
    return Secret(base64.b64encode(os.urandom(32)).decode())

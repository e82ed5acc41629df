"""The three keys: set, not a placeholder, known to the running API; and what makes JWT_SECRET safe."""

from __future__ import annotations

import time
from typing import Any

import pytest
from testinfra.host import Host

from contract import Contract
from rules import APP_ID, JWT_SECRET, MIN_JWT_SECRET, PARTNER_TOKEN, TOKENS
from settings import Settings
from tests.verify.checks import running_secrets
from tests.verify.plugin import DEPLOY, Pending, Seen, Unfit, component, needs
from tests.verify.target import Answers, Pm2

ROWS = {PARTNER_TOKEN: "partner_token", APP_ID: "app_id", JWT_SECRET: "jwt_secret"}
WAIT = f"when YClients has sent it, put it into your .env; then {DEPLOY}"
FORGED = "the application signs with its public default, so anyone can forge its tokens"
CLOCK = 30  # seconds


def _each(actions: dict[str, str]) -> pytest.MarkDecorator:
    """One check for each key, each in its own row."""
    cases = [pytest.param(key, marks=component(ROWS[key], action), id=key) for key, action in actions.items()]
    return pytest.mark.parametrize("key", cases)


def _waits(kind: str, key: str) -> bool:
    return key in TOKENS and kind in ("absent", "empty", "placeholder")


@_each({PARTNER_TOKEN: WAIT, APP_ID: WAIT, JWT_SECRET: DEPLOY})
def test_set(dotenv: dict[str, Any], settings: Settings, seen: Seen, key: str) -> None:
    read = dotenv["keys"][key]
    kind, length = read["kind"], read["length"]
    found = f"{key} in .env is {'a placeholder' if kind == 'placeholder' else kind}"
    if _waits(kind, key):
        if read["is_yours"] is None:
            raise Pending(found)
        raise Unfit(f"{found}, and yours is not on the host yet", DEPLOY)
    assert kind != "glued", f"{key} stands at the end of another line of .env: a line break is missing before it"
    assert kind in ("set", "public"), f"{found}: {FORGED}"
    if kind == "set" and read["is_yours"] is False:
        raise Unfit(f"{key} on the host is not the one that you have here", DEPLOY)
    seen(f"set, {length} characters" + (", and the running API has it" if settings.health_check else ""))


@_each(dict.fromkeys(TOKENS, f"put the right value into your .env; then {DEPLOY}"))
def test_has_its_form(dotenv: dict[str, Any], key: str) -> None:
    kind, malformed = dotenv["keys"][key]["kind"], dotenv["keys"][key]["malformed"]
    assert kind != "set" or not malformed, f"{key} in .env {malformed}"


@_each({PARTNER_TOKEN: f'{DEPLOY} (this is the cause of "Invalid partner token")', APP_ID: DEPLOY, JWT_SECRET: DEPLOY})
def test_reaches_the_api(dotenv: dict[str, Any], answers: dict[str, Answers], settings: Settings, key: str) -> None:
    if not settings.health_check:
        return  # disabled in the settings, and nothing else shows it
    kind = dotenv["keys"][key]["kind"]
    if _waits(kind, key):
        raise Pending(f"{key} in .env is {kind}")
    needs(kind in ("set", "public"), f"{key} is not in .env")
    needs(answers["health"].direct.status, "the API does not answer: see Endpoints")
    running = running_secrets(answers)
    needs(running is not None, "the health check does not say what the API has: see Endpoints")
    assert running and running.get(ROWS[key]), f"{key} is in .env, but the running API does not have it" + (
        f": {FORGED}" if key == JWT_SECRET else ""
    )


@_each(dict.fromkeys(ROWS, "ask the application's developers which name it reads, and put the value there by hand"))
def test_is_read(contract: Contract, key: str) -> None:
    """A health check that asks whether the key is set proves nothing of what uses it."""
    assert key in contract.keys, f"no file of the application's source reads {key}: it may have another name there"


@_each(dict.fromkeys(ROWS, f"{DEPLOY} (it removes the value from pm2)"))
def test_is_not_shadowed(pm2: Pm2, key: str) -> None:
    needs(pm2.workers, "pm2 does not run the API")
    shadowed = any(key in worker.shadowed for worker in pm2.workers)
    assert not shadowed, f"{key} of .env is overridden by pm2's own environment, at every restart"


@component("jwt_secret")
def test_secret_is_long(dotenv: dict[str, Any]) -> None:
    kind, length = dotenv["keys"][JWT_SECRET]["kind"], dotenv["keys"][JWT_SECRET]["length"]
    needs(kind == "set", "JWT_SECRET is not set")
    assert length >= MIN_JWT_SECRET, f"JWT_SECRET has {length} characters and can be guessed; it needs {MIN_JWT_SECRET}"


@component("jwt_secret")
def test_secret_is_not_public(dotenv: dict[str, Any]) -> None:
    kind = dotenv["keys"][JWT_SECRET]["kind"]
    assert kind != "public", f"JWT_SECRET in .env is the application's own default: {FORGED}"


# whoever runs the API must still read it
PRIVATE = "chown {user} {app_dir}/.env && chmod 600 {app_dir}/.env && {pm2} restart {app} (so it counts as loaded)"


LOST = "on your laptop: pyinfra inventory.py rollback.py, or put it back from your own backup; then deploy"


@component("jwt_secret", LOST)
def test_dotenv_is_there(host: Host, settings: Settings) -> None:
    assert host.file(settings.dotenv).exists, f"{settings.dotenv} is missing"


@component("jwt_secret", PRIVATE)
def test_dotenv_is_private(host: Host, pm2: Pm2, settings: Settings) -> None:
    """The group of whoever runs the API may read it: `root:app 0640` is common."""
    file = host.file(settings.dotenv)
    needs(file.exists, ".env is missing")
    own = host.user(pm2.user).group == file.group
    assert file.mode & (0o037 if own else 0o077) == 0, f".env can be read by other users: mode {file.mode:o}"


@component("jwt_secret", "timedatectl set-ntp true")
def test_clock_is_right(host: Host) -> None:
    """Where the clock is off, a token with a lifetime of an hour expires at once, or much too late."""
    began = getattr(host.backend, "began", time.time())
    there, here = int(host.check_output("date +%s")), time.time()
    off = min(there - began, 0) or max(there - here, 0)
    assert abs(off) <= CLOCK, (
        f"the host's clock is {abs(off):.0f} s {'behind' if off < 0 else 'ahead of'} this machine's"
    )

"""The three keys: set in .env, known to the running API, not overridden. Their values never leave the host."""

from __future__ import annotations

import pytest

from rules import APP_ID, JWT_SECRET, MIN_JWT_SECRET, PARTNER_TOKEN, TOKENS
from tests.verify.answers import answer, running_secrets
from tests.verify.plugin import DEPLOY, Pending, Seen, component, needs
from tests.verify.target import Reading, Target

ROWS = {PARTNER_TOKEN: "partner_token", APP_ID: "app_id", JWT_SECRET: "jwt_secret"}
WAIT = f"when YClients has sent it, put it into your .env; then {DEPLOY}"
FORGED = "the application signs with its public default, so anyone can forge its tokens"
CLOCK = 30  # seconds


def _each(actions: dict[str, str]) -> pytest.MarkDecorator:
    """One check for each key, each in its own row."""
    cases = [pytest.param(key, marks=component(ROWS[key], action), id=key) for key, action in actions.items()]
    return pytest.mark.parametrize("key", cases)


def _kind(probe: Reading, key: str) -> str:
    return probe[f"env.{key}"].split()[0]


def _waits(probe: Reading, key: str) -> bool:
    return key in TOKENS and _kind(probe, key) in ("absent", "empty", "placeholder")


@_each({PARTNER_TOKEN: WAIT, APP_ID: WAIT, JWT_SECRET: DEPLOY})
def test_set(probe: Reading, seen: Seen, key: str) -> None:
    kind = _kind(probe, key)
    found = f"{key} in .env is {'a placeholder' if kind == 'placeholder' else kind}"
    if _waits(probe, key):
        raise Pending(found)
    assert kind != "glued", f"{key} stands at the end of another line of .env: a line break is missing before it"
    assert kind in ("set", "public"), f"{found}: {FORGED}"
    seen(f"set, {probe[f'env.{key}'].split()[1]} characters, and the running API has it")


@_each({PARTNER_TOKEN: f'{DEPLOY} (this is the cause of "Invalid partner token")', APP_ID: DEPLOY, JWT_SECRET: DEPLOY})
def test_reaches_the_api(probe: Reading, target: Target, key: str) -> None:
    if not target.settings.health_check:
        return  # disabled in the settings, and nothing else shows it
    if _waits(probe, key):
        raise Pending(f"{key} in .env is {_kind(probe, key)}")
    needs(_kind(probe, key) in ("set", "public"), f"{key} is not in .env")
    needs(answer(probe, "direct.health").code != "000", "the API does not answer: see Endpoints")
    running = running_secrets(probe)
    needs(running is not None, "the health check does not say what the API has: see Endpoints")
    assert running and running.get(ROWS[key]), f"{key} is in .env, but the running API does not have it" + (
        f": {FORGED}" if key == JWT_SECRET else ""
    )


@_each(dict.fromkeys(ROWS, "ask the application's developers which name it reads, and put the value there by hand"))
def test_is_read(target: Target, key: str) -> None:
    """A health check that asks whether the key is set proves nothing of what uses it."""
    assert key in target.contract.keys, (
        f"no file of the application's source reads {key}: it may have another name there"
    )


@_each(dict.fromkeys(ROWS, f"{DEPLOY} (it removes the value from pm2)"))
def test_is_not_shadowed(probe: Reading, key: str) -> None:
    needs(bool(probe["pm2.pid"]), "pm2 does not run the API")
    assert key not in probe["pm2.shadowed"].split(), (
        f"{key} of .env is overridden by pm2's own environment, at every restart"
    )


@component("jwt_secret")
def test_secret_is_long(probe: Reading) -> None:
    needs(_kind(probe, JWT_SECRET) == "set", "JWT_SECRET is not set")
    length = int(probe[f"env.{JWT_SECRET}"].split()[1])
    assert length >= MIN_JWT_SECRET, f"JWT_SECRET has {length} characters and can be guessed; it needs {MIN_JWT_SECRET}"


@component("jwt_secret")
def test_secret_is_not_public(probe: Reading) -> None:
    assert _kind(probe, JWT_SECRET) != "public", f"JWT_SECRET in .env is the application's own default: {FORGED}"


@component("jwt_secret", "chmod 600 /opt/ai-admin/.env")
def test_dotenv_is_private(probe: Reading) -> None:
    mode = probe["dotenv.mode"]
    assert mode[-2:] == "00", f".env can be read by other users: mode {mode}"


@component("jwt_secret", "timedatectl set-ntp true")
def test_clock_is_right(probe: Reading, target: Target) -> None:
    """Where the clock is off, a token with a lifetime of an hour expires at once, or much too late."""
    began, ended = target.span
    off = min(int(probe["clock"]) - began, 0) or max(int(probe["clock"]) - ended, 0)
    which = "behind" if off < 0 else "ahead of"
    assert abs(off) <= CLOCK, f"the host's clock is {abs(off):.0f} s {which} this machine's"

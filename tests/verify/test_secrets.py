"""The three keys: in .env, in the running API, hidden by nothing. Their values never leave the host."""

from __future__ import annotations

import pytest

from tests.verify.answers import answer, running_secrets
from tests.verify.plugin import DEPLOY, Pending, Seen, component, needs
from tests.verify.target import Reading, Target

PARTNER_TOKEN, APP_ID, JWT_SECRET = "YCLIENTS_PARTNER_TOKEN", "YCLIENTS_APP_ID", "JWT_SECRET"
ROWS = {PARTNER_TOKEN: "partner_token", APP_ID: "app_id", JWT_SECRET: "jwt_secret"}
WAIT = f"put it into your .env when YClients has sent it, then {DEPLOY}"
FORGED = "the app signs with its public default, anyone can forge its tokens"
CLOCK = 30  # seconds


def _each(actions: dict[str, str]) -> pytest.MarkDecorator:
    """One check a key, each in its own row."""
    cases = [pytest.param(key, marks=component(ROWS[key], action), id=key) for key, action in actions.items()]
    return pytest.mark.parametrize("key", cases)


def _kind(probe: Reading, key: str) -> str:
    return probe[f"env.{key}"].split()[0]


def _waits(probe: Reading, key: str) -> bool:
    return key != JWT_SECRET and _kind(probe, key) in ("absent", "empty", "placeholder")


@_each({PARTNER_TOKEN: WAIT, APP_ID: WAIT, JWT_SECRET: DEPLOY})
def test_set(probe: Reading, seen: Seen, key: str) -> None:
    kind = _kind(probe, key)
    words = f"{key} is {kind} in .env" if kind != "placeholder" else f"{key} in .env is a placeholder"
    if _waits(probe, key):
        raise Pending(words)
    assert kind != "glued", f"{key} is glued to the line before it in .env, which had no line break"
    assert kind in ("set", "public"), f"{words}: {FORGED}"
    seen(f"set, {probe[f'env.{key}'].split()[1]} characters, and the running API has it")


@_each({PARTNER_TOKEN: f'{DEPLOY} ("Invalid partner token" is this)', APP_ID: DEPLOY, JWT_SECRET: DEPLOY})
def test_reaches_the_api(probe: Reading, target: Target, key: str) -> None:
    if not target.settings.health_check:
        return  # switched off among the knobs, and nothing else tells
    if _waits(probe, key):
        raise Pending(f"{key} is {_kind(probe, key)} in .env")
    needs(_kind(probe, key) in ("set", "public"), f"{key} is not in .env")
    needs(answer(probe, "direct.health").code != "000", "the API does not answer: see Endpoints")
    running = running_secrets(probe)
    needs(running is not None, "the health check does not tell what the API has: see Endpoints")
    assert running and running.get(ROWS[key]), f"{key} is in .env, but the running API does not have it" + (
        f": {FORGED}" if key == JWT_SECRET else ""
    )


@_each(dict.fromkeys(ROWS, f"{DEPLOY} (it makes pm2 forget the value)"))
def test_is_not_shadowed(probe: Reading, key: str) -> None:
    needs(bool(probe["pm2.pid"]), "pm2 does not run the API")
    assert key not in probe["pm2.shadowed"].split(), (
        f"{key} of .env is shadowed: pm2's own environment has one too, and that one wins in every restart"
    )


@component("jwt_secret")
def test_secret_is_long(probe: Reading) -> None:
    needs(_kind(probe, JWT_SECRET) == "set", "JWT_SECRET is not set")
    length = int(probe[f"env.{JWT_SECRET}"].split()[1])
    assert length >= 32, f"JWT_SECRET has {length} characters and can be guessed; it needs 32"


@component("jwt_secret")
def test_secret_is_not_public(probe: Reading) -> None:
    assert _kind(probe, JWT_SECRET) != "public", f"JWT_SECRET in .env is the application's own default: {FORGED}"


@component("jwt_secret", "chmod 600 .env in the application's folder")
def test_dotenv_is_private(probe: Reading) -> None:
    mode = probe["dotenv.mode"]
    assert mode[-2:] == "00", f".env can be read by others: mode {mode}"


@component("jwt_secret", "timedatectl set-ntp true")
def test_clock_is_right(probe: Reading, target: Target) -> None:
    """A token that ends in an hour ends at once, or never, on a host whose clock is off."""
    began, ended = target.span
    off = min(int(probe["clock"]) - began, 0) or max(int(probe["clock"]) - ended, 0)
    which = "behind" if off < 0 else "ahead of"
    assert abs(off) <= CLOCK, f"the host's clock is {abs(off):.0f} s {which} this machine's"

from __future__ import annotations

from dataclasses import replace
from unittest.mock import Mock

import pytest

from credentials import APP_ID, JWT_SECRET, KEYS, Credentials, Secret
from facts.dotenv import Dotenv, Key
from facts.look import Look, Wanted
from facts.npm import Npm, Package
from facts.pm2 import Pm2
from facts.source import ROUTES, SESSION_POOL, Source
from operations import source
from operations.pm2 import reasons
from settings import Settings
from tests.unit.test_settings import DEFAULTS
from tests.unit.test_source import COMPLETE, ROUTES_TEXT

SETTINGS = Settings.load(DEFAULTS)
WANTED = Wanted(SETTINGS, Credentials({}, None))
FILES: dict[str, bytes | None] = {ROUTES: ROUTES_TEXT, SESSION_POOL: COMPLETE}
CONVERGED = Look(
    dotenv=Dotenv("sha", {key: Key("set", equal=False, times=1) for key in KEYS}),
    npm=Npm({"socket.io": Package("4.8.1", True, "^4.8.1", "4.8.1")}),
    source=Source({**FILES, **source.changes(Source(FILES), SETTINGS)}),
    migration=Mock(),
    nginx=Mock(),
    pm2=Pm2("online", stale=False, shadowed=[]),
    backups=Mock(),
)


def test_converged_needs_no_restart() -> None:
    assert reasons(CONVERGED, WANTED) == []


@pytest.mark.parametrize(
    ("pm2", "why"),
    [
        (Pm2("online", stale=True, shadowed=[]), ["it is older than its files"]),
        (Pm2("errored", stale=True, shadowed=[]), ["pm2 says errored"]),
        (Pm2("unknown", stale=True, shadowed=[]), ["pm2 says unknown"]),
        (Pm2("no daemon", stale=True, shadowed=[]), ["pm2 says no daemon"]),
        (
            Pm2("online", stale=False, shadowed=[JWT_SECRET, APP_ID]),
            ["pm2's own record hides JWT_SECRET, YCLIENTS_APP_ID of .env"],
        ),
    ],
)
def test_what_pm2_says(pm2: Pm2, why: list[str]) -> None:
    assert reasons(replace(CONVERGED, pm2=pm2), WANTED) == why


def test_changes_ahead_count() -> None:
    """In the plan nothing is written yet, and the restart must be in it."""
    packages = Npm({"socket.io": Package(None, False, "^4.8.1", "4.8.1")})
    assert reasons(replace(CONVERGED, npm=packages), WANTED) == ["packages will change"]
    assert reasons(replace(CONVERGED, source=Source(FILES)), WANTED) == ["source will change"]
    wanted = replace(WANTED, credentials=Credentials({APP_ID: Secret("1")}, None))
    assert reasons(CONVERGED, wanted) == [".env will change"]


def test_a_pending_token_is_no_reason() -> None:
    keys = {**CONVERGED.dotenv.keys, APP_ID: Key("absent", equal=False, times=0)}
    assert reasons(replace(CONVERGED, dotenv=Dotenv("sha", keys)), WANTED) == []

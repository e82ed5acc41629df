"""The packages, the database, and the session pool that makes the QR codes."""

from __future__ import annotations

import re

import pytest

from tests.verify.plugin import DEPLOY, Seen, component, needs
from tests.verify.target import Reading, Target

PACKAGES = {"socket.io": "websocket", "jsonwebtoken": "jwt_secret", "@whiskeysockets/baileys": "baileys"}
METHODS = ("getQR", "getSession", "createSession", "getSessionStatus")
GET_QR = f"{DEPLOY} (\"Cannot read property 'getQR' of undefined\" is this)"
COLUMNS = f'{DEPLOY} ("Column does not exist" is this)'

_each_package = pytest.mark.parametrize(
    "package", [pytest.param(name, marks=component(row), id=name) for name, row in PACKAGES.items()]
)


def _major(words: str) -> str:
    found = re.search(r"\d+", words)
    return found[0] if found else ""


@_each_package
def test_package_is_installed(probe: Reading, package: str) -> None:
    assert not probe[f"npm.{package}"].startswith("missing"), (
        f"{package} is not in node_modules: the next restart takes the API down"
    )


@_each_package
def test_package_has_the_right_major(probe: Reading, target: Target, package: str) -> None:
    version, wanted = probe[f"npm.{package}"].split()[:2]
    needs(version != "missing", f"{package} is not installed")
    wanted = wanted if wanted != "-" else target.settings.packages[package]
    assert _major(version) == _major(wanted), f"{package} is {version}, the application wants {wanted}"


@component("database", "systemctl status postgresql; is DATABASE_URL the right database?")
def test_database_has_the_companies(probe: Reading) -> None:
    words = probe["database"]
    assert words.startswith(("complete", "without ")), f"the table companies cannot be seen: {words[:150]}"


@component("database", COLUMNS)
def test_companies_has_the_columns(probe: Reading, seen: Seen) -> None:
    words = probe["database"]
    needs(words.startswith(("complete", "without ")), "the table companies cannot be seen")
    assert words == "complete", f"the migration is not applied: companies is {words}"
    seen("companies has the five columns")


@component("baileys", "node -e \"require('/opt/ai-admin/src/integrations/whatsapp/session-pool.js')\" says why")
def test_session_pool_loads(probe: Reading, seen: Seen) -> None:
    assert probe["pool.loads"] == "yes", f"session-pool.js does not load: {probe['pool.loads']}"
    seen("the session pool's four methods are there and return what they should")


@component("baileys", GET_QR)
@pytest.mark.parametrize("method", METHODS)
def test_session_pool_has(probe: Reading, method: str) -> None:
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    assert probe[f"pool.{method}"] == "there", f"the session pool has no {method}"


@component("baileys", "mend the method in src/integrations/whatsapp/session-pool.js")
@pytest.mark.parametrize("method", ["getQR", "getSession", "getSessionStatus"])
def test_session_pool_method_works(probe: Reading, method: str) -> None:
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    needs(probe[f"pool.{method}"] == "there", f"the session pool has no {method}")
    found = probe[f"pool.{method}()"]
    assert found == "right", f"{method} of the session pool, called for a session that is there: {found}"


@component("baileys", "createSession must make the session itself: src/integrations/whatsapp/session-pool.js")
def test_session_pool_is_not_recursive(probe: Reading) -> None:
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    assert probe["pool.recursion"] == "none", "createSession and getOrCreateSession call each other: endless"


@component("baileys", "install Node.js 20 or newer, then pm2 restart ai-admin-api")
def test_node_is_new_enough(probe: Reading) -> None:
    found, wanted = probe["node.version"], probe["node.wanted"]
    assert re.match(r"v\d", found), f"node does not run: {found}"
    assert int(_major(found)) >= int(_major(wanted)), f"node is {found}, baileys wants {wanted}"

"""The packages, the database, and the session pool that makes the QR codes."""

from __future__ import annotations

import re

import pytest

from rules import METHODS, SESSION_POOL
from tests.verify.plugin import DEPLOY, Seen, component, needs
from tests.verify.target import Reading, Target

GET_QR = f"{DEPLOY} (this is the cause of \"Cannot read property 'getQR' of undefined\")"
MIGRATE = f'{DEPLOY} (this is the cause of "Column does not exist")'


def _major(version: str) -> str:
    found = re.search(r"\d+", version)
    return found[0] if found else ""


def test_package_is_installed(probe: Reading, package: str) -> None:
    assert not probe[f"npm.{package}"].startswith("missing"), (
        f"{package} is not in node_modules: the API will fail at its next restart"
    )


def test_package_has_the_right_major(probe: Reading, target: Target, package: str) -> None:
    version, wanted = probe[f"npm.{package}"].split()[:2]
    needs(version != "missing", f"{package} is not installed")
    wanted = wanted if wanted != "-" else target.settings.packages[package]
    assert _major(version) == _major(wanted), f"{package} is {version}, the application needs {wanted}"


@component("database", "systemctl status postgresql; check that DATABASE_URL names the right database")
def test_database_has_the_companies(probe: Reading) -> None:
    found = probe["database"]
    assert found.startswith(("complete", "without ")), f"the table companies cannot be read: {found[:150]}"


@component("database", MIGRATE)
def test_companies_has_the_columns(probe: Reading, seen: Seen) -> None:
    found = probe["database"]
    needs(found.startswith(("complete", "without ")), "the table companies cannot be read")
    assert found == "complete", f"the migration has not been applied: companies is {found}"
    seen("companies has the five columns")


@component("baileys", f"to see why: node -e \"require('/opt/ai-admin/{SESSION_POOL}')\"")
def test_session_pool_loads(probe: Reading, seen: Seen) -> None:
    assert probe["pool.loads"] == "yes", f"session-pool.js does not load: {probe['pool.loads'].removeprefix('no: ')}"
    seen("the session pool has its four methods, and they work")


@component("baileys", GET_QR)
@pytest.mark.parametrize("method", METHODS)
def test_session_pool_has(probe: Reading, method: str) -> None:
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    assert probe[f"pool.{method}"] == "there", f"the session pool has no {method}"


@component("baileys", f"{DEPLOY}; a method that it says nobody knows, the application's developers must add")
def test_session_pool_has_what_is_called(probe: Reading, target: Target) -> None:
    """The requirements' list of methods is not all that the marketplace calls."""
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    unread = [each for each in target.contract.unread if "calls" in each]
    needs(not unread, f"it cannot be read in the source {', '.join(unread)}")
    there = probe["pool.methods"].split()
    lacking = [f"{name}() ({place})" for name, place in target.contract.calls.items() if name not in there]
    assert not lacking, f"the session pool has no {', '.join(lacking)}, which the marketplace calls"


@component("baileys", f"fix the method in {SESSION_POOL}")
@pytest.mark.parametrize("method", ["getQR", "getSession", "getSessionStatus"])
def test_session_pool_method_works(probe: Reading, method: str) -> None:
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    needs(probe[f"pool.{method}"] == "there", f"the session pool has no {method}")
    found = probe[f"pool.{method}()"]
    assert found == "right", f"{method} of the session pool, called for an existing session: {found}"


@component("baileys", f"fix {SESSION_POOL}: createSession must create the session itself")
def test_session_pool_is_not_recursive(probe: Reading) -> None:
    needs(probe["pool.loads"] == "yes", "the session pool does not load")
    assert probe["pool.recursion"] == "none", "createSession and getOrCreateSession call each other in an endless loop"


@component("baileys", "install Node.js 20 or newer, then {pm2} restart ai-admin-api")
def test_node_is_new_enough(probe: Reading) -> None:
    found = probe["node.version"]
    major, package, wanted = probe["node.wanted"].split(" ", 2)
    assert re.match(r"v\d", found), f"node does not run: {found}"
    assert int(_major(found)) >= int(major), f"node is {found}, {package} needs {wanted}"
